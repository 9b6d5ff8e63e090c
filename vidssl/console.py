"""How the command line shows progress: a rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from vidssl.progress import SILENT, Progress, Task

PLAIN_LINE_EVERY = 10.0  # seconds


def make_progress(console: Console, quiet: bool) -> Progress:
    """Gives what fits the console: bars on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return SILENT
    return RichProgress(console) if console.is_terminal else PlainProgress(console)


def _figures(figures: dict[str, float | str]) -> str:
    parts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()]
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Timed:
    """Counting, rate and remaining time, for both ways of showing."""

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self._before, self._begin = done, time.monotonic()
        self.figures: dict[str, float | str] = {}

    def count(self, n: int, figures: dict[str, float | str]) -> None:
        self.done += n
        self.figures |= figures

    @property
    def rate(self) -> float:
        return (self.done - self._before) / max(time.monotonic() - self._begin, 1e-9)

    def rate_text(self) -> str:
        return f"{self.rate:.3g} {self.unit}s/s"


class RichProgress:
    """Bars with rate and remaining time on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        return _RichTask(self.console, _Timed(description, total, unit, done))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


class _RichTask:
    def __init__(self, console: Console, timed: _Timed) -> None:
        self._timed = timed
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", style="cyan"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=console,
        )
        self._id = self._bars.add_task(
            timed.description, total=timed.total, completed=timed.done, rate="", figures=""
        )

    def advance(self, n: int = 1, **figures: float | str) -> None:
        self._timed.count(n, figures)
        self._bars.update(
            self._id,
            advance=n,
            rate=self._timed.rate_text(),
            figures=_figures(self._timed.figures),
        )

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


class PlainProgress:
    """One line every ten seconds and one at the end, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        return _PlainTask(self, _Timed(description, total, unit, done))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _PlainTask:
    def __init__(self, progress: PlainProgress, timed: _Timed) -> None:
        self._progress, self._timed = progress, timed
        self._begin = self._last = time.monotonic()

    def advance(self, n: int = 1, **figures: float | str) -> None:
        self._timed.count(n, figures)
        if time.monotonic() - self._last >= PLAIN_LINE_EVERY:
            self._last = time.monotonic()
            self._progress.say(self._line())

    def _line(self) -> str:
        timed = self._timed
        of = f"/{timed.total}" if timed.total is not None else ""
        left = ""
        if timed.total is not None and timed.rate > 0:
            left = f", {_duration((timed.total - timed.done) / timed.rate)} left"
        figures = f"  {_figures(timed.figures)}" if timed.figures else ""
        head = f"{timed.description}: {timed.done}{of} {timed.unit}s"
        return f"{head}, {timed.rate_text()}{left}{figures}"

    def note(self, text: str) -> None:
        self._progress.say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        timed = self._timed
        took = _duration(time.monotonic() - self._begin)
        figures = f"  {_figures(timed.figures)}" if timed.figures else ""
        self._progress.say(
            f"{timed.description}: {timed.done} {timed.unit}s in {took}, "
            f"{timed.rate_text()}{figures}"
        )
