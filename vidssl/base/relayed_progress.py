"""Sends the progress of another process to this one, where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

from vidssl.base.progress import Progress, Task


@dataclass(frozen=True)
class ProgressCall:
    """One call of a method of a progress, or of a task of it.

    Attributes:
        task: number of the task; 0: the progress itself.
    """

    task: int
    method: str
    values: tuple[Any, ...] = ()
    figures: Mapping[str, float | str] = field(default_factory=dict)


class ProgressSender:
    """A progress that sends every call to another process.

    Args:
        tell: takes each :class:`ProgressCall`, such as a pipe's `send`.
    """

    def __init__(self, tell: Callable[[ProgressCall], None]) -> None:
        self._tell, self._numbers = tell, count(1)

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        values = (description, total, unit, done)
        return _SentTask(self._tell, next(self._numbers), values)

    def say(self, text: str) -> None:
        self._tell(ProgressCall(0, "say", (text,)))


class _SentTask:
    def __init__(
        self, tell: Callable[[ProgressCall], None], number: int, values: tuple[Any, ...]
    ) -> None:
        self._tell, self._number, self._values = tell, number, values

    def advance(self, n: int = 1, **figures: float | str) -> None:
        self._tell(ProgressCall(self._number, "advance", (n,), figures))

    def note(self, text: str) -> None:
        self._tell(ProgressCall(self._number, "note", (text,)))

    def __enter__(self) -> Self:
        self._tell(ProgressCall(self._number, "begin", self._values))
        return self

    def __exit__(self, *error: object) -> None:
        self._tell(ProgressCall(self._number, "end"))


class ProgressReceiver:
    """Repeats on a progress here the calls of one :class:`ProgressSender`.

    Closing it ends the tasks that are still open.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, Task] = {}

    def show(self, told: ProgressCall) -> None:
        """Makes the same call here."""
        match told.method:
            case "say":
                self._progress.say(*told.values)
            case "begin":
                self._tasks[told.task] = self._progress.task(*told.values)
                self._tasks[told.task].__enter__()
            case "end":
                self._tasks.pop(told.task).__exit__(None, None, None)
            case method:
                getattr(self._tasks[told.task], method)(*told.values, **told.figures)

    def close(self) -> None:
        """Ends the tasks that the other process did not end: it may have died."""
        while self._tasks:
            _, task = self._tasks.popitem()
            task.__exit__(None, None, None)
