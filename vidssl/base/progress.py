"""The interface by which stages report progress, and a silent implementation.

The command line implements it with progress bars on a terminal and with plain lines elsewhere. The
default for library users is :data:`SILENT`.
"""

from __future__ import annotations

from typing import Any, Protocol, Self


class Task(Protocol):
    """A long piece of work, counted in units. Its bar is shown within a `with` statement."""

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """Counts `n` more units as done; `figures` are shown beside the bar."""

    def note(self, text: str) -> None:
        """Shows one line about this task, without disturbing the bar."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...


class Progress(Protocol):
    """The receiver of a stage's reports."""

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        """Returns a task of `total` units (None: unknown), of which `done` were finished before."""

    def say(self, text: str) -> None:
        """Shows one plain line."""


class Named:
    """A progress that puts a name before its tasks, for several that are shown at a time."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        return self._progress.task(f"{self._name}: {description}", total, unit, done)

    def say(self, text: str) -> None:
        self._progress.say(text)


class _SilentTask:
    def advance(self, n: int = 1, **figures: float | str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Silent:
    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        return _SilentTask()

    def say(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()
