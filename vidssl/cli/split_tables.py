"""Tables of an evaluation on several splits: one row for each split, and their mean."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from vidssl.cli.tables import percent
from vidssl.stages.over_splits import OverSplits, figures_of

HEADS = {"top1": "top-1 %", "top5": "top-5 %"}


def over_splits_table(title: str, found: OverSplits[Any]) -> Table:
    """Returns a row of figures for each split, and a last one of means and standard errors."""
    table = Table(title=Text(f"{title}, {len(found.splits)} splits"), title_justify="left")
    table.add_column("split")
    for name in found.means:
        table.add_column(HEADS.get(name, f"{name} %"), justify="right", no_wrap=True)
    for split, result in found.splits.items():
        figures = figures_of(result)
        table.add_row(Text(split), *(percent(figures[name]) for name in found.means))
    cells = [percent(mean.mean, mean.error) for mean in found.means.values()]
    table.add_row("mean", *cells, style="bold")
    return table


def notes_of_splits(found: OverSplits[Any]) -> list[str]:
    """Returns what is to be said of each split, with its name; the same of all only once."""
    each = {split: result.stage.notes for split, result in found.splits.items()}
    shared = [note for note in next(iter(each.values())) if all(note in n for n in each.values())]
    own = [f"{s}: {note}" for s, notes in each.items() for note in notes if note not in shared]
    return shared + own
