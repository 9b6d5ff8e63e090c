"""How a stage tells what it is doing, without knowing who listens.

Stages call these few methods; the command line draws them (rich on a terminal, plain lines
elsewhere), and a library user gets :data:`SILENT`.
"""

from __future__ import annotations

from typing import Protocol, Self


class Task(Protocol):
    """One piece of long work with a rate and an end."""

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """Counts `n` units done; `figures` are shown beside the bar."""

    def note(self, text: str) -> None:
        """Shows one line about this piece of work without disturbing the bar."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Progress(Protocol):
    """What a stage reports to."""

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        """Opens a piece of work of `total` units (None: unknown), of which `done` lie behind."""

    def say(self, text: str) -> None:
        """Shows one plain line."""


class Named:
    """A progress whose tasks bear a name: where several are shown at a time, it tells whose."""

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
