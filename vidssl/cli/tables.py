"""Draws results as tables, and as lines on a terminal too narrow for a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from vidssl.base.text import counted

if TYPE_CHECKING:  # importing these would load PyTorch
    from vidssl.evaluation.average_precision import MeanPrecision
    from vidssl.evaluation.baseline_figures import BaselineFigures
    from vidssl.evaluation.classification import ClassificationReport, ViewRow
    from vidssl.evaluation.neighbours import Recall
    from vidssl.evaluation.recall import RetrievalReport
    from vidssl.retrieval.answers import Neighbour, QueryAnswer, QueryResult
    from vidssl.stages.baselines import BaselineResult
    from vidssl.stages.demo import DemoResult
    from vidssl.stages.flow_diff import FlowDiff
    from vidssl.stages.verify import VerifyResult
    from vidssl.training.trial_steps import Forecast

FOLDED = 12  # characters that a column needs whose text may be cut into lines anywhere
BORDERS = 3  # characters beside each column's text
NO_LIMIT = 10_000  # characters


def percent(share: float | None, error: float | None = None) -> str:
    """Returns a share as a percentage, with its standard error where there is one."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def classification_tables(title: str, report: ClassificationReport) -> RenderableType:
    """Returns the head line of a probe or of a finetuned network, and its table per class."""
    shown = Text(f"{title} of {report.checkpoint} ({report.stream}), split {report.split}")
    head = Table(title=shown, title_justify="left")
    if report.streams:
        head.add_column("stream")
    trained = ["on training part %"] if report.train_top1 is not None else []
    for column in ("top-1 %", "top-5 %", "chance %", *trained, "train", "test"):
        head.add_column(column, justify="right", no_wrap=not column.startswith("on"))
    for row in report.streams:
        head.add_row(row.stream, *_accuracies(row, report))
    lead = ["mean"] if report.streams else []
    head.add_row(*lead, *_accuracies(report.as_view_row(), report), style="bold")
    classes = Table("class")
    for column in ("test clips", "top-1 %"):
        classes.add_column(column, justify="right")
    classes.add_column("most taken for")
    for each in report.classes:
        taken_for = f"{each.confused_with} ({each.confused})" if each.confused_with else ""
        clips, accuracy = str(each.test_clips), percent(each.accuracy)
        classes.add_row(Text(each.name), clips, accuracy, Text(taken_for))
    return Group(head, classes)


def _accuracies(row: ViewRow, report: ClassificationReport) -> list[str]:
    trained = [percent(row.train_top1)] if report.train_top1 is not None else []
    return [
        percent(row.top1, row.error),
        percent(row.top5, row.top5_error),
        percent(report.chance),
        *trained,
        str(report.train_clips),
        str(report.test_clips),
    ]


def forecast_table(plan: Mapping[str, Any], forecast: Forecast) -> Table:
    """Returns a table of what a training run would need: memory, time, bytes to be read."""
    recipe = plan["recipe"]
    table = Table(title=f"plan of {plan['makes']} (nothing was kept)", title_justify="left")
    table.show_header = False
    for style in ("", "bold", "dim"):
        table.add_column(style=style)
    for what, much, more in _forecast_rows(plan, recipe, forecast):
        table.add_row(what, Text(much), Text(more))
    return table


def _forecast_rows(
    plan: Mapping[str, Any], recipe: Mapping[str, Any], f: Forecast
) -> Iterator[tuple[str, str, str]]:
    yield "inputs", ", ".join(plan["inputs"].values()), ""
    yield "videos", f"{plan['training_videos']:,}", f"split {recipe['split']}"
    trained = f"{f.trained / 1e6:.1f} million of them trained"
    yield "parameters", f"{f.parameters / 1e6:.1f} million", trained
    parts = counted(f.batch_per_process // f.micro_batch, "micro-batch")
    share = f"{f.batch_per_process} in each process" if f.processes > 1 else "in one process"
    batch = f.batch_per_process * f.processes
    yield "batch", f"{batch} videos", f"{share}, {parts} of {f.micro_batch}"
    on = f"{plan['device']}, {recipe['precision']}"
    there = "" if f.memory_there is None else f" of {gigabytes(f.memory_there)}"
    if f.memory is None:
        yield "memory", f"more than {gigabytes(f.memory_there or 0)}", on
    else:
        how = "measured" if f.measured else "an estimate"
        yield "memory", gigabytes(f.memory) + there, f"{how}; {on}"
    total = f.steps_per_epoch * f.epochs
    yield "steps", f"{total:,}", f"{f.epochs} epochs of {f.steps_per_epoch:,}"
    if f.seconds_per_epoch is not None and f.samples_per_second is not None:
        tried = f"by {counted(f.tried, 'step')}; data wait {percent(f.data_wait)} %"
        yield "speed", f"{f.samples_per_second:.4g} videos/s", tried
        whole = duration(f.seconds_per_epoch * f.epochs)
        yield "time", f"{duration(f.seconds_per_epoch)} an epoch", f"{whole} in all"
    read = gigabytes(f.bytes_per_epoch * f.epochs)
    yield "to be read", f"{gigabytes(f.bytes_per_epoch)} an epoch", f"{read} in all"
    if f.note:
        yield "note", f.note, ""


def gigabytes(number: float) -> str:
    """Returns a number of bytes in TB, GB, MB or kB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Returns a time in days, hours, minutes or seconds."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def flow_diff_tables(found: FlowDiff) -> RenderableType:
    """Returns end-point errors between two artifacts' flow, and where they are largest."""
    title = f"end-point error, {found.first} against {found.second}"
    errors = Table("pixels of the working size")
    errors.add_column(f"of {found.first}", justify="right")
    errors.add_row("mean", f"{found.mean:.3f}")
    for share, error in found.quantiles.items():
        errors.add_row("median" if share == 0.5 else f"{share:.0%} are below", f"{error:.3f}")
    errors.add_row("largest", f"{found.largest:.2f}")
    for error, share in found.within.items():
        errors.add_row(f"below {error:g}", f"{percent(share)} %")
    said = Text(
        f"{found.frames} frames of {found.videos} videos; mean motion {found.motion[0]:.2f} px in "
        f"{found.first}, {found.motion[1]:.2f} in {found.second}; largest means: "
        + ", ".join(f"{video} {mean:.3f}" for video, mean in found.worst)
    )
    return Group(Text(title), errors, said, *(Text(note, style="yellow") for note in found.notes))


def recall_table(
    reports: Sequence[RetrievalReport], probes: Sequence[ClassificationReport] = ()
) -> Table:
    """Returns R@k and mAP of one or several features, and what chance gives.

    Args:
        probes: of the same features, shown beside.
    """
    first = reports[0]
    parts = [counted(first.queries, "test video"), counted(first.gallery, "train video")]
    title = f"nearest neighbour, {' in '.join(parts)}"
    table = Table(title=f"{title}, split {first.split}", title_justify="left")
    table.add_column("features", overflow="fold")
    for row in first.recall:
        table.add_column(f"R@{row.k} %", justify="right", no_wrap=True)
    table.add_column("mAP %", justify="right", no_wrap=True)
    if probes:
        table.add_column("linear probe top-1 %", justify="right")
    several = any(report.other or report.metric != "centred" for report in reports)
    for report, probe in zip_longest(reports, probes):
        cells = _recall_cells(report.recall, report.precision)
        cells += [percent(probe.top1, probe.error)] if probe else []
        metric = f", {report.metric}" if several else ""
        table.add_row(Text(f"{report.features}{metric}"), *cells)
        if (other := report.other) is not None:
            cells = _recall_cells(other.recall, other.precision)
            table.add_row(Text(f"{report.features}, {other.metric}"), *cells)
    chance = percent(first.precision.chance) if first.precision else ""
    cells = [*(percent(row.chance) for row in first.recall), chance]
    table.add_row("chance", *cells, style="dim")
    return table


def _recall_cells(recall: Sequence[Recall], precision: MeanPrecision | None) -> list[str]:
    """Returns R@k and mAP, one standard error beside the figures that are quoted most."""
    cells = [percent(recall[0].recall, recall[0].error)]
    cells += [percent(row.recall) for row in recall[1:]]
    return [*cells, percent(precision.mean, precision.error) if precision else ""]


def baselines_beside(baselines: Sequence[BaselineFigures]) -> RenderableType:
    """Returns what needs no learning on the same split, or how it is measured."""
    if not baselines:
        return Text("vidssl baselines measures what needs no learning, to compare", style="dim")
    figure = "R@1 %" if baselines[0].recall is not None else "linear probe top-1 %"
    table = Table("without learning", title_justify="left", style="dim")
    table.add_column(figure, justify="right")
    if figure == "R@1 %":
        table.add_column("mAP %", justify="right")
    for each in baselines:
        share = each.top1 if each.recall is None else each.recall
        cells = [] if share is None else [percent(share, each.error)]
        if figure == "R@1 %":
            cells.append("" if each.precision is None else percent(each.precision))
        table.add_row(Text(each.features), *cells, style="dim")
    return table


def baseline_table(results: Sequence[BaselineResult]) -> Table:
    """Returns R@k and the linear probe of each baseline."""
    return recall_table(
        [result.retrieval.report for result in results if result.retrieval.report is not None],
        [result.probe.report for result in results if result.probe.report is not None],
    )


def query_tables(result: QueryResult) -> RenderableType:
    """Returns each query's nearest neighbours."""
    return Group(*(_answer_table(answer, result) for answer in result.answers))


def _answer_table(answer: QueryAnswer, result: QueryResult) -> RenderableType:
    gallery = f"{counted(result.gallery, 'video')} of {result.pack}"
    where = f"{result.features} in {gallery}"
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


def verify_table(result: VerifyResult) -> RenderableType:
    """Returns one row per artifact and, below, one line per problem.

    Where there is no artifact, returns a sentence that says so.
    """
    if not result.findings:
        return Text("there is no artifact in this workspace yet: nothing was verified")
    table = Table("artifact", "files", "bytes", "found")
    for finding in result.findings:
        found = Text("sound", "green") if finding.ok else Text("damaged", "bold red")
        table.add_row(Text(finding.artifact), str(finding.files), f"{finding.bytes:,}", found)
    problems = [
        Text(f"{finding.artifact}: {problem}", style="red")
        for finding in result.findings
        for problem in finding.problems
    ]
    repairs = [
        Text(f"{'repaired' if repair.done else 'not repaired'}: {repair.said}",
             style="green" if repair.done else "yellow")
        for repair in result.repairs
    ]  # fmt: skip
    return Group(table, *repairs, *problems)


def demo_tables(result: DemoResult, workspace: Path) -> RenderableType:
    """Returns a table of what the demo learned, its findings, and commands to type next."""
    first = result.rows[0].recall
    table = Table("features", title="what was learned", title_justify="left")
    table.add_column("nearest neighbour R@1 %", justify="right")
    table.add_column("linear probe top-1 %", justify="right")
    table.add_row("chance", percent(first.at(1).chance), percent(1 / len(result.classes)))
    for row in result.rows:
        at1 = row.recall.at(1)
        probed = percent(row.probe.top1, row.probe.error) if row.probe else "–"
        table.add_row(row.features, percent(at1.recall, at1.error), probed)
    query = result.query
    drawn = [Text(f"neighbours of {query.name}: {result.sheet}")] if result.sheet else []
    when = "this time" if result.gone_on else "in all"
    said = [
        Text(f"{first.queries} test and {first.gallery} training clips of "
             f"{len(result.classes)} motions, {result.total:.0f} s {when}"),
        *map(Text, result.findings()),
        *drawn,
        Text(""),
        Text("Go on with this workspace:", style="bold"),
        typed("vidssl", "report", "-w", workspace),
        typed("vidssl", "retrieve", query, "--stream", "rgb,flow", "-w", workspace),
        typed("vidssl", "cotrain", "--stream", "flow", "-w", workspace),
        typed("vidssl", "status", "-w", workspace),
    ]  # fmt: skip
    return Group(table, *said)


def typed(*words: object) -> Text:
    """Returns a command in one line however narrow the terminal, so that it can be copied."""
    return Text(f"  {join(map(str, words))}", no_wrap=True, overflow="ignore")


def _times(n: Neighbour) -> str:
    if n.begin is None or n.end is None:
        return f"frames {n.first_frame}–{n.last_frame}"
    return f"{n.begin:.1f}–{n.end:.1f} s"


# ── narrow terminals ────────────────────────────────────────────────────────────────────────────


def fitted(shown: RenderableType, console: Console) -> RenderableType:
    """Returns what is shown, each table that is wider than the console replaced by lines."""
    if isinstance(shown, Group):
        return Group(*(fitted(part, console) for part in shown.renderables))
    if isinstance(shown, Table) and _least_width(shown, console) > console.width:
        return Group(*_lines(shown, console))
    return shown


def _least_width(table: Table, console: Console) -> int:
    """Returns the characters that a table needs at least to show all it has."""
    return 1 + sum(BORDERS + _column_width(column, table, console) for column in table.columns)


def _column_width(column: Column, table: Table, console: Console) -> int:
    cells = [*([column.header] if table.show_header else []), *column.cells]
    options = console.options.update(max_width=NO_LIMIT)
    sizes = [Measurement.get(console, options, cell) for cell in cells]
    least = max((s.maximum if column.no_wrap else s.minimum for s in sizes), default=0)
    return min(least, FOLDED) if column.overflow == "fold" else least


def _lines(table: Table, console: Console) -> Iterator[Text]:
    """Yields a table's title and rows as lines, each cell after the head of its column.

    Of two columns, the first cell of a row is the head of the second one.
    """
    if table.title:
        yield _text(table.title, console)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    for row in rows:
        cells = [_text(cell, console) for cell in row]
        if not table.show_header:
            yield Text("  ").join(cell for cell in cells if cell.plain)
        elif len(cells) == 2:
            yield Text.assemble("  ", cells[0], ": ", cells[1])
        else:
            for column, cell in zip(table.columns, cells, strict=True):
                if cell.plain:
                    yield Text.assemble("  ", _text(column.header, console), ": ", cell)
            yield Text("")


def _text(cell: RenderableType, console: Console) -> Text:
    return console.render_str(cell) if isinstance(cell, str) else cell  # type: ignore[return-value]
