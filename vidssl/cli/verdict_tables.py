"""Draws a verdict as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vidssl.report.measured_rows import BASELINE, NEAREST, PROBE
from vidssl.report.verdict import SplitVerdict, Verdict
from vidssl.report.verdict_data import cells, per_cent, shown_figures
from vidssl.report.verdict_words import HOW, mean_words, split_words

ROOMLESS = ("R@5", "R@10")  # shown without their error, which --json and --csv have


def verdict_parts(verdict: Verdict) -> Iterator[RenderableType]:
    """Yields the table of each split with its sentences, then what is about all of them."""
    for split in verdict.splits:
        yield _table(split)
        for sentence in split_words(split):
            yield Text(f"• {sentence}")
        for name, said in split.paper.items():
            yield Text(f"the paper of {name}'s recipe reports: {said}", style="dim")
        for sentence in split.warnings:
            yield Text(f"note: {sentence}", style="yellow")
    if verdict.means:
        yield Group(Text("over splits and seeds:", style="bold"))
    for sentence in mean_words(verdict.means):
        yield Text(f"• {sentence}")
    for label in verdict.unmeasured:
        name = label.partition("/")[2]
        yield Text(
            f"not measured: {label}; vidssl retrieve --evaluate --checkpoint {name} measures it",
            style="dim",
        )
    yield Text(HOW, style="dim")


def _table(split: SplitVerdict) -> Table:
    columns = shown_figures(split)
    title = Text(f"{split.title}, {max(row.tests for row in split.rows)} test videos")
    table = Table(title=title, title_justify="left")
    table.add_column("run", overflow="fold")
    for name in columns:
        shown = f"{name} top-1" if name == PROBE else name
        table.add_column(f"{shown} %", justify="right", no_wrap=name == NEAREST)
    for row in split.rows:
        style = "dim" if row.kind == BASELINE else "bold"
        table.add_row(Text(row.name), *cells(row, columns, ROOMLESS), style=style)
    chance = [per_cent(split.chance.get(name)) for name in columns]
    table.add_row("chance", *chance, style="dim")
    return table
