"""Lines of progress with a bar, drawn so that a narrow screen takes the least important first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task
from rich.table import Table
from rich.text import Text

BAR_WIDEST, BAR_NARROWEST = 24, 8  # characters
GAP = 1  # characters between two columns
FIGURES_APART = "  "


class Bars(Progress):
    """Bars whose name, count and time left are whole on any screen that has room for these.

    Where there is no room for all, figures go first, the last one first; then the bar, then the
    rate. A name that is too long even so goes on in the next line. Every task has the fields
    `rate`, `left` and `figures` (a sequence of texts, the most important first).
    """

    _spinner, _count = SpinnerColumn(), MofNCompleteColumn()

    def make_tasks_table(self, tasks: Sequence[Task]) -> Table:  # type: ignore[override]
        """Returns a line per task, in columns, as wide as the console at most."""
        if not tasks:  # as at the very beginning, when there is no console yet
            return Table.grid()
        names = [Text(task.description) for task in tasks]
        counts = [self._count(task) for task in tasks]
        rates = [Text(task.fields["rate"], "cyan") for task in tasks]
        lefts = [Text(task.fields["left"]) for task in tasks]
        room = self.console.width - 1 - sum(_column(c) for c in (names, counts, lefts))  # spinner

        has_rate = _column(rates) <= room
        room -= _column(rates) * has_rate
        bar = min(BAR_WIDEST, room - GAP)
        has_bar = bar >= BAR_NARROWEST
        room -= (bar + GAP) * has_bar

        columns: list[list[RenderableType]] = [[self._spinner(task) for task in tasks], [*names]]
        if has_bar:
            columns.append([BarColumn(bar)(task) for task in tasks])
        columns += [[*counts], *([[*rates]] if has_rate else []), [*lefts]]
        figures = [_those_that_fit(task.fields["figures"], room - GAP) for task in tasks]
        columns += [[*figures]] if any(figures) else []
        return _grid(columns)


def _column(texts: Sequence[Text]) -> int:
    """Returns the characters that a column takes, and the gap before it."""
    return GAP + max((text.cell_len for text in texts), default=0)


def _those_that_fit(figures: Sequence[str], room: int) -> Text:
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
