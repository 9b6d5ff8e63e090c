"""How results look on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vidssl.stages.probe import ProbeReport
from vidssl.stages.query import Neighbour, QueryAnswer, QueryResult
from vidssl.stages.recall import RetrievalReport


def percent(share: float | None, error: float | None = None) -> str:
    """Gives a share as a percentage, with its standard error where there is one."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def probe_tables(report: ProbeReport) -> RenderableType:
    """Gives the probe's head line and its table per class."""
    title = f"linear probe of {report.checkpoint} ({report.stream})"
    head = Table(title=title, title_justify="left")
    for column in ("top-1 %", "top-5 %", "chance %", "on training part %"):
        head.add_column(column, justify="right")
    for column in ("train", "test", "split"):
        head.add_column(column, justify="right")
    head.add_row(
        Text(percent(report.top1, report.error), style="bold"),
        percent(report.top5, report.top5_error),
        percent(report.chance),
        percent(report.train_top1),
        str(report.train_clips),
        str(report.test_clips),
        report.split,
    )
    classes = Table("class")
    for column in ("test clips", "top-1 %"):
        classes.add_column(column, justify="right")
    classes.add_column("most taken for")
    for row in report.classes:
        mistaken = f"{row.confused_with} ({row.confused})" if row.confused_with else ""
        classes.add_row(Text(row.name), str(row.test_clips), percent(row.accuracy), Text(mistaken))
    return Group(head, classes)


def recall_table(reports: list[RetrievalReport]) -> Table:
    """Gives R@k of one or several features."""
    first = reports[0]
    title = f"nearest neighbour, {first.queries} test videos in {first.gallery} train videos"
    table = Table("features", title=f"{title}, split {first.split}", title_justify="left")
    for row in first.recall:
        table.add_column(f"R@{row.k} %", justify="right")
    for report in reports:
        cells = [percent(row.recall, row.error) for row in report.recall]
        table.add_row(Text(report.features), *cells)
    return table


def query_tables(result: QueryResult) -> RenderableType:
    """Gives each query's nearest neighbours."""
    return Group(*(_answer_table(answer, result) for answer in result.answers))


def _answer_table(answer: QueryAnswer, result: QueryResult) -> RenderableType:
    where = f"{' + '.join(result.checkpoints)} in {result.gallery} videos of {result.pack}"
    table = Table(title=Text(f"{Path(answer.query).name}: {where}"), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("similarity", justify="right")
    table.add_column("video", overflow="fold")
    labelled = any(n.label for n in answer.neighbours)
    if labelled:
        table.add_column("label")
    table.add_column("time", justify="right", no_wrap=True)
    for n in answer.neighbours:
        label = [Text(n.label or "–")] if labelled else []
        table.add_row(str(n.rank), f"{n.similarity:.3f}", Text(n.video), *label, _times(n))
    if answer.sheet is None:
        return table
    return Group(table, Text(f"contact sheet: {answer.sheet}", style="dim"))


def _times(n: Neighbour) -> str:
    if n.begin is None or n.end is None:
        return f"frames {n.first_frame}–{n.last_frame}"
    return f"{n.begin:.1f}–{n.end:.1f} s"
