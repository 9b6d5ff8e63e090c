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
        send: takes each :class:`ProgressCall`, such as a pipe's `send`.
    """

    def __init__(self, send: Callable[[ProgressCall], None]) -> None:
        self._send, self._numbers = send, count(1)

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        values = (description, total, unit, done)
        return _SentTask(self._send, next(self._numbers), values)

    def say(self, text: str) -> None:
        self._send(ProgressCall(0, "say", (text,)))


class _SentTask:
    def __init__(
        self, send: Callable[[ProgressCall], None], number: int, values: tuple[Any, ...]
    ) -> None:
        self._send, self._number, self._values = send, number, values

    def advance(self, n: int = 1, **figures: float | str) -> None:
        self._send(ProgressCall(self._number, "advance", (n,), figures))

    def note(self, text: str) -> None:
        self._send(ProgressCall(self._number, "note", (text,)))

    def __enter__(self) -> Self:
        self._send(ProgressCall(self._number, "begin", self._values))
        return self

    def __exit__(self, *error: object) -> None:
        self._send(ProgressCall(self._number, "end"))


class ProgressReceiver:
    """Repeats on a progress here the calls of one :class:`ProgressSender`.

    Closing it ends the tasks that are still open.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, Task] = {}

    def repeat(self, call: ProgressCall) -> None:
        """Makes the same call here."""
        match call.method:
            case "say":
                self._progress.say(*call.values)
            case "begin":
                self._tasks[call.task] = self._progress.task(*call.values)
                self._tasks[call.task].__enter__()
            case "end":
                self._tasks.pop(call.task).__exit__(None, None, None)
            case method:
                getattr(self._tasks[call.task], method)(*call.values, **call.figures)

    def close(self) -> None:
        """Ends the tasks that the other process did not end: it may have died."""
        while self._tasks:
            _, task = self._tasks.popitem()
            task.__exit__(None, None, None)
