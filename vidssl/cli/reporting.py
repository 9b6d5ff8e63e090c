"""Commands that show what was learned: compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vidssl.base.errors import UsageError
from vidssl.cli.app import EVALUATION, command
from vidssl.cli.parsing import only_given
from vidssl.cli.terminal import Terminal
from vidssl.workspace.summaries import size


@command(panel=EVALUATION)
def compare(
    terminal: Terminal,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Checkpoints; default: all that were measured."),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print one line of CSV for each run and figure.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Say which run is best, and whether it is better than doing nothing.

    Takes what retrieve --evaluate, probe, finetune and baselines measured, split by split; measures
    nothing. Two runs are compared over the same test videos.

    Example:  vidssl compare

    Example:  vidssl compare rgb-coclr rgb-infonce --markdown
    """
    from vidssl.cli.verdict_tables import verdict_parts
    from vidssl.report.verdict_data import verdict_as_csv, verdict_as_dict, verdict_as_markdown
    from vidssl.stages import compare as stage

    if terminal.json + csv + markdown > 1:
        raise UsageError("give one of --json, --csv and --markdown: they all print to stdout")
    found = terminal.run(stage.run, stage.CompareOptions(tuple(runs or ())))
    terminal.json_out(verdict_as_dict(found))
    if csv or markdown:
        written = verdict_as_csv(found) if csv else verdict_as_markdown(found)
        for line in written.splitlines():  # a terminal is shown no line break within a text
            terminal.show(Text(line))
        return
    for part in verdict_parts(found):
        terminal.show(part)


@command(panel=EVALUATION)
def report(
    terminal: Terminal,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: vidssl-report.html.")
    ] = None,
) -> None:
    """Write one HTML file that shows what the runs learned: verdict, curves, strips, maps.

    It opens from disk and loads nothing. It takes what lies in the workspace, and measures nothing.

    Example:  vidssl report

    Example:  vidssl report --out results.html
    """
    from vidssl.stages import report as stage

    result = terminal.run(stage.run, stage.ReportOptions(**only_given(out=out)))
    terminal.json_out(result.as_dict())
    for sentence in result.verdict:
        terminal.show(Text(f"• {sentence}"))
    terminal.notes(result.without)
    terminal.show(Text(f"{result.path}: {size(result.bytes)}; open it in a browser"))
