"""Shows progress: bars that fit the terminal's width, plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
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
LOOK_EVERY = 1.0  # seconds between two looks at how far the work has come
BAR_WIDEST, BAR_NARROWEST = 24, 8  # characters
GAP = 1  # characters between two columns
FIGURES_APART = "  "


def make_progress(console: Console, quiet: bool) -> Progress:
    """Returns what fits the console: bars on a terminal, lines elsewhere, nothing when quiet."""
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
    """Counting, rate and remaining time, for both ways of showing.

    The rate is that of this process's own work over the last minute. While the work is younger it
    begins with the work itself, not with the first unit done: several processes bring their first
    ones all at once, and time taken from there would be none.
    """

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self._before, self._begin = done, time.monotonic()
        self._now = self._begin
        self._looks = deque([(self._begin, done)])  # the first one ends the span of the rate
        self.figures: dict[str, float | str] = {}

    def count(self, n: int, figures: dict[str, float | str]) -> None:
        self.done += n
        self.figures |= figures
        self._now = time.monotonic()
        if self._now - self._looks[-1][0] >= LOOK_EVERY:
            self._looks.append((self._now, self.done))
        while self._now - self._looks[0][0] > RATE_OVER and len(self._looks) > 2:
            self._looks.popleft()

    @property
    def untouched(self) -> bool:
        """Whether this process has done nothing of it yet."""
        return self.done == self._before

    @property
    def rate(self) -> float:
        """Units per second of late."""
        since, done = self._looks[0]
        return (self.done - done) / max(self._now - since, 1e-9)

    @property
    def average(self) -> float:
        """Units per second of all of this process's work."""
        return (self.done - self._before) / max(time.monotonic() - self._begin, 1e-9)

    def left_text(self) -> str:
        """How long it will take; empty at the end, and where it cannot be told."""
        if self.total is None or self.rate <= 0 or self.done >= self.total:
            return ""
        return f"{_duration((self.total - self.done) / self.rate)} left"

    def rate_text(self, rate: float) -> str:
        return f"{_number(rate)} {plural(self.unit)}/s"

    def done_text(self) -> str:
        """How much is done in all, and how much of it by this process where not all is."""
        whole = counted(self.done, self.unit)
        if not self._before:
            return whole
        own = self.done - self._before
        return f"{whole}, {own or 'none'} of them now"


class RichProgress:
    """Bars with rate and remaining time on a terminal.

    Those of tasks that are open at the same time lie below each other; the bar of one that ends
    moves above them, and stays.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (own,) = [task for task in self._bars.tasks if task.id == self._id]
        last = self._bars.make_tasks_table([own])
        self._bars.remove_task(self._id)
        if self._bars.tasks:
            self._bars.refresh()  # else the bar would be seen twice until the others move
        else:
            self._bars.stop()
        self._bars.console.print(last)


class FittedBars(rich_progress.Progress):
    """Bars whose name, count and time left are whole on any screen that has room for these.

    Where there is no room for all, figures go first, the last one first; then the bar, then the
    rate. A name that is too long even so goes on in the next line. Every task has the fields
    `rate`, `left` and `figures` (a sequence of texts, the most important first).
    """

    _spinner = rich_progress.SpinnerColumn()
    _count = rich_progress.MofNCompleteColumn()

    def make_tasks_table(self, tasks: Sequence[rich_progress.Task]) -> Table:  # type: ignore[override]
        """Returns a line per task, in columns, as wide as the console at most."""
        if not tasks:  # as at the very beginning, when there is no console yet
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
    """Returns the characters that a column takes, and the gap before it."""
    return GAP + max((text.cell_len for text in texts), default=0)


def _figures_that_fit(figures: Sequence[str], room: int) -> Text:
    """Returns the first of the figures, whole ones, in so many characters."""
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
        left = f", {timed.left_text()}" if timed.left_text() else ""
        figures = "".join(f"  {figure}" for figure in _figures(timed.figures))
        head = f"{timed.description}: {timed.done}{of} {plural(timed.unit)}"
        return f"{head}, {timed.rate_text(timed.rate)}{left}{figures}"

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
        if error is not None and timed.untouched:
            return  # the error is all there is to say
        if timed.untouched and timed.done:
            self._progress.say(f"{timed.description}: {timed.done_text()}")
            return
        took = _duration(time.monotonic() - self._begin)
        figures = "".join(f"  {figure}" for figure in _figures(timed.figures))
        self._progress.say(
            f"{timed.description}: {timed.done_text()} in {took}, "
            f"{timed.rate_text(timed.average)}{figures}"
        )
