"""The command that writes vectors of video files: embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidssl.base.text import counted
from vidssl.cli.app import EVALUATION, command
from vidssl.cli.options import (
    DeviceOption,
    EvaluatedStreamOption,
    VideoBoundOptions,
)
from vidssl.cli.parsing import pairs_from
from vidssl.cli.terminal import Terminal


@command(panel=EVALUATION)
def embed(
    terminal: Terminal,
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEOS", help="Files, folders (searched deeply), or text files of paths."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write; its ending names the format: .parquet, .npy (with a .csv of its "
            "rows), .h5 or .csv."
        ),
    ] = Path("vectors.npy"),
    windows: Annotated[
        bool, typer.Option("--windows", help="One row for each window, not for each video.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="Of the workspace, or what vidssl export wrote; default: the newest.",
        ),
    ] = None,
    stream: EvaluatedStreamOption = None,
    pack: Annotated[
        str | None,
        typer.Option(
            help="Make frames and flow as this pack has them; default: as the checkpoint's pack."
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="folders (a video's folder is its label), none, or a CSV file.")
    ] = "folders",
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="VIEW=FILE", help="Of the network that makes a video's view."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Replace the file, and begin anew.")] = False,
    device: DeviceOption = None,
    *,
    bounds: VideoBoundOptions,
) -> None:
    """Write a vector for each video file, or for each of its windows; no pack is needed.

    Frames are decoded, and flow is computed where the encoder wants it, as the checkpoint's pack
    did. Interrupted, the same command goes on. Damaged videos are left out and named (exit 3).

    Example:  vidssl embed VIDEOS/ --out vectors.parquet

    Example:  vidssl embed a.mp4 b.mp4 --windows --stream flow --out moments.h5

    Example:  vidssl embed VIDEOS/ -c exported-encoder --out vectors.npy
    """
    from vidssl.stages import embed as stage

    encoder = stage.EncoderOptions(
        checkpoint, stream, pack, pairs_from("--weights", weights), device=device,
        bounds=bounds.bounds(),
    )  # fmt: skip
    options = stage.EmbedFiles(tuple(videos), out, encoder, windows, labels, new)
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    for path in result.files:
        terminal.show(str(path))
    what = "window" if windows else "video"
    terminal.show(f"{counted(result.rows, what)}, {result.width} numbers each")
    terminal.notes(result.notes)
    terminal.left_out(result.quarantined)
