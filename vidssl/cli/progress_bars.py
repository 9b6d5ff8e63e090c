"""Shows progress: bars that fit the terminal's width, plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Self

from rich import progress as rich_progress
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vidssl.base.progress import SILENT, Progress, Task
from vidssl.base.text import counted, plural

PLAIN_LINE_EVERY = 10.0  # seconds
RATE_OVER = 60.0  # seconds that the rate is taken over
SAMPLE_EVERY = 1.0  # seconds between two samples of how much is done
BAR_WIDEST, BAR_NARROWEST = 24, 8  # characters
GAP = 1  # characters between two columns
FIGURES_APART = "  "


def make_progress(console: Console, quiet: bool) -> Progress:
    """Returns bars for a terminal, plain lines for another console, and nothing when quiet."""
    if quiet:
        return SILENT
    return RichProgress(console) if console.is_terminal else PlainProgress(console)


def _number(value: float) -> str:
    """Returns three digits of a number, and all before the point: 0.528, 12.3, 1,010."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _figures(figures: dict[str, float | str]) -> list[str]:
    return [f"{k} {_number(v) if isinstance(v, float) else v}" for k, v in figures.items()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Timed:
    """Counts units of work, and computes their rate and the remaining time.

    The rate is that of this process's own work over the last minute. In the first minute it is
    taken since the start of the work, not since the first unit: several processes deliver their
    first units at the same moment, and no time passes between these.
    """

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self._before, self._begin = done, time.monotonic()
        self._now = self._begin
        self._samples = deque([(self._begin, done)])  # the rate is taken since the first of these
        self.figures: dict[str, float | str] = {}

    def count(self, n: int, figures: dict[str, float | str]) -> None:
        self.done += n
        self.figures |= figures
        self._now = time.monotonic()
        if self._now - self._samples[-1][0] >= SAMPLE_EVERY:
            self._samples.append((self._now, self.done))
        while self._now - self._samples[0][0] > RATE_OVER and len(self._samples) > 2:
            self._samples.popleft()

    @property
    def untouched(self) -> bool:
        """Whether this process has done none of the work yet."""
        return self.done == self._before

    @property
    def rate(self) -> float:
        """Units per second over the last minute."""
        since, done = self._samples[0]
        return (self.done - done) / max(self._now - since, 1e-9)

    @property
    def average(self) -> float:
        """Units per second over all of this process's work."""
        return (self.done - self._before) / max(time.monotonic() - self._begin, 1e-9)

    def left_text(self) -> str:
        """Returns the remaining time; empty at the end, and where it is unknown."""
        if self.total is None or self.rate <= 0 or self.done >= self.total:
            return ""
        return f"{_duration((self.total - self.done) / self.rate)} left"

    def rate_text(self, rate: float) -> str:
        return f"{_number(rate)} {plural(self.unit)}/s"

    def done_text(self) -> str:
        """Returns how much is done, and how much of that by this process if not all."""
        whole = counted(self.done, self.unit)
        if not self._before:
            return whole
        own = self.done - self._before
        return f"{whole}, {own or 'none'} of them now"


class RichProgress:
    """Shows a bar with rate and remaining time for each task.

    Bars of tasks that run at the same time stand below each other. When a task ends, its bar moves
    above the others and stays there.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = FittedBars(console=console, transient=True)

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Task:
        return _RichTask(self._bars, _Timed(description, total, unit, done))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


class _RichTask:
    def __init__(self, bars: FittedBars, timed: _Timed) -> None:
        self._bars, self._timed = bars, timed

    def advance(self, n: int = 1, **figures: float | str) -> None:
        self._timed.count(n, figures)
        self._bars.update(
            self._id,
            advance=n,
            rate=self._timed.rate_text(self._timed.rate),
            left=self._timed.left_text(),
            figures=_figures(self._timed.figures),
        )

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        timed = self._timed
        self._id = self._bars.add_task(
            timed.description, total=timed.total, completed=timed.done, rate="", left="", figures=()
        )
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        (own,) = [task for task in self._bars.tasks if task.id == self._id]
        last = self._bars.make_tasks_table([own])
        self._bars.remove_task(self._id)
        if self._bars.tasks:
            self._bars.refresh()  # otherwise the bar is shown twice until another one advances
        else:
            self._bars.stop()
        self._bars.console.print(last)


class FittedBars(rich_progress.Progress):
    """Fits bars to narrow terminals: a task's name, count and remaining time are always shown.

    Where there is no room for everything, figures are left out first, beginning with the last one;
    then the bar, then the rate. A name that is still too long is continued in the next line. Every
    task has the fields `rate`, `left` and `figures` (a sequence of texts, the most important
    first).
    """

    _spinner = rich_progress.SpinnerColumn()
    _count = rich_progress.MofNCompleteColumn()

    def make_tasks_table(self, tasks: Sequence[rich_progress.Task]) -> Table:  # type: ignore[override]
        """Returns one line per task, in columns, at most as wide as the console."""
        if not tasks:  # rich calls it once before there is a console
            return Table.grid()
        names = [Text(task.description) for task in tasks]
        counts = [self._count(task) for task in tasks]
        rates = [Text(task.fields["rate"], "cyan") for task in tasks]
        lefts = [Text(task.fields["left"]) for task in tasks]
        room = (
            self.console.width - 1 - sum(_column_width(c) for c in (names, counts, lefts))
        )  # spinner

        has_rate = _column_width(rates) <= room
        room -= _column_width(rates) * has_rate
        bar = min(BAR_WIDEST, room - GAP)
        has_bar = bar >= BAR_NARROWEST
        room -= (bar + GAP) * has_bar

        columns: list[list[RenderableType]] = [[self._spinner(task) for task in tasks], [*names]]
        if has_bar:
            columns.append([rich_progress.BarColumn(bar)(task) for task in tasks])
        columns += [[*counts], *([[*rates]] if has_rate else []), [*lefts]]
        figures = [_figures_that_fit(task.fields["figures"], room - GAP) for task in tasks]
        columns += [[*figures]] if any(figures) else []
        return _grid(columns)


def _column_width(texts: Sequence[Text]) -> int:
    """Returns the width of a column in characters, with the gap before it."""
    return GAP + max((text.cell_len for text in texts), default=0)


def _figures_that_fit(figures: Sequence[str], room: int) -> Text:
    """Returns as many of the first figures as fit whole into `room` characters."""
    shown = list(figures)
    while shown and cell_len(FIGURES_APART.join(shown)) > room:
        shown.pop()
    return Text(FIGURES_APART.join(shown), "dim")


def _grid(columns: Sequence[Sequence[RenderableType]]) -> Table:
    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for i, _ in enumerate(columns):
        is_name = i == 1
        grid.add_column(no_wrap=not is_name, overflow="fold" if is_name else "crop")
    for row in zip(*columns, strict=True):
        grid.add_row(*row)
    return grid


class PlainProgress:
    """Prints one line every ten seconds and one at the end, for logs and pipes."""

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
        left = f", {timed.left_text()}" if timed.left_text() else ""
        figures = "".join(f"  {figure}" for figure in _figures(timed.figures))
        head = f"{timed.description}: {timed.done}{of} {plural(timed.unit)}"
        return f"{head}, {timed.rate_text(timed.rate)}{left}{figures}"

    def note(self, text: str) -> None:
        self._progress.say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        timed = self._timed
        if any(error) and timed.untouched:
            return  # the error is printed elsewhere
        if timed.untouched and timed.done:
            self._progress.say(f"{timed.description}: {timed.done_text()}")
            return
        took = _duration(time.monotonic() - self._begin)
        figures = "".join(f"  {figure}" for figure in _figures(timed.figures))
        self._progress.say(
            f"{timed.description}: {timed.done_text()} in {took}, "
            f"{timed.rate_text(timed.average)}{figures}"
        )
