"""The program `vidssl`, its own options, and the decorator that adds a command to it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vidssl.cli.command import terminal_command
from vidssl.cli.command_group import Program
from vidssl.version import VERSION

# Headings of `vidssl --help`.
PIPELINE, EVALUATION, WORKSPACE = "Pipeline", "Evaluation", "Workspace"

app = typer.Typer(
    name="vidssl",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

command = partial(terminal_command, app)


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.")
    ] = False,
) -> None:
    """Self-supervised learning on folders of raw, unlabelled video.

    [bold]The pipeline:[/bold] extract-flow → pack → pretrain → cotrain → probe, retrieve.

    Each stage finds its input in the workspace and writes a new version of its artifact there.

    Try it without any data:  vidssl demo
    """
    if version:
        typer.echo(f"vidssl {VERSION}")
        raise typer.Exit
