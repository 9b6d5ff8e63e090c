"""Commands about the workspace: status, verify, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidssl.cli.app import WORKSPACE, command
from vidssl.cli.options import DeviceOption, SeedOption, SetOption, WorkersOption
from vidssl.cli.parsing import only_given, settings_from
from vidssl.cli.terminal import Terminal

DEMO_WORKSPACE = Path(
    "vidssl-demo"
)  # a separate one: its artifacts are never the newest of the user's


@command(panel=WORKSPACE, damaged=True)
def status(
    terminal: Terminal,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show what was made from what, oldest first.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all artifacts, not only the newest of each kind.")
    ] = False,
) -> None:
    """Show the workspace: artifacts, which are stale and why, what is running or unfinished.

    One line for each artifact, kind by kind, the newest first: name, date, size, figures. Where
    there are many, only the newest of each kind are shown. Unfinished runs of the same name are
    shown with the options in which they differ.

    Example:  vidssl status

    Example:  vidssl status --all

    Example:  vidssl status --tree
    """
    from vidssl.cli.status_table import status_list, status_tree
    from vidssl.stages import status as stage

    result = stage.run(terminal.workspace)
    terminal.json_out(result.as_dict())
    shown = status_tree(result, stage.tree(result)) if tree else status_list(result, everything)
    terminal.show(shown)


@command(panel=WORKSPACE, damaged=True)
def verify(
    terminal: Terminal,
    artifacts: Annotated[
        list[str] | None, typer.Argument(metavar="ARTIFACT", help="Default: all.")
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make again what sources and parents can make, and say so."),
    ] = False,
    videos: Annotated[
        Path | None, typer.Option(help="The videos of damaged shards; only with --repair.")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Check every byte of the artifacts against what was written, down to the frame.

    Example:  vidssl verify

    Example:  vidssl verify pack/main/v001

    Example:  vidssl verify --repair --videos VIDEOS/
    """
    from vidssl.cli.tables import verify_table
    from vidssl.stages import verify as stage

    options = stage.VerifyOptions(tuple(artifacts or ()), repair, videos, workers)
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    terminal.show(verify_table(result))
    if not result.ok:
        raise typer.Exit(1)


@command(panel=WORKSPACE, workspace=DEMO_WORKSPACE)
def demo(
    terminal: Terminal,
    clips: Annotated[
        int | None, typer.Option(min=60, help="How many clips to make, test clips included.")
    ] = None,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    settings: SetOption = None,
) -> None:
    """Make a few hundred clips, run the whole pipeline on them, and show what was learned.

    In the clips the class is the motion, and appearance is random: only what sees motion can
    tell them apart. Takes a few minutes on two CPU cores, and leaves a workspace to go on with.

    Example:  vidssl demo
    """
    from vidssl.cli.tables import demo_tables
    from vidssl.stages import demo as stage

    options = stage.DemoOptions(
        seed=seed, workers=workers, device=device, settings=settings_from(settings),
        **only_given(clips=clips),
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    terminal.show(demo_tables(result, terminal.workspace.root))
