"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing.")]
NewOption = Annotated[
    bool, typer.Option("--new", help="Repeat a finished run under a new version.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of all chance in the run.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda; default: cuda where there is one.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N (from 0); default: by Slurm's or torchrun's variables, else all.",
    ),
]
DaskOption = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Work on a dask.distributed cluster."),
]
VideosArgument = Annotated[
    Path, typer.Argument(help="A folder (searched deeply), a video, or a text file of paths.")
]
StreamOption = Annotated[
    str, typer.Option("--stream", help="The view to train, such as rgb or flow.")
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="A shipped recipe; default: paper with CUDA, cpu without."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the training videos.")
]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Videos per step, over all GPUs.")
]
PackOption = Annotated[str | None, typer.Option("--pack", help="Default: the newest that fits.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="A split column of the annotations.")
]
SaveEveryOption = Annotated[
    float, typer.Option("--save-every", min=0, help="Seconds between two saves of resume.pt.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Demand an unfinished run to continue.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="Of backbones: bf16 (default with CUDA; unsound on a CPU) or float32."),
]
CompileOption = Annotated[bool, typer.Option("--compile", help="torch.compile the backbone.")]
RecomputeOption = Annotated[
    bool,
    typer.Option("--recompute", help="Compute activations twice: less memory, a third more time."),
]
DecodeOption = Annotated[
    str, typer.Option(help="Who decodes JPEG: host, or gpu (nvJPEG; levels differ by one or two).")
]
PlanOption = Annotated[
    bool,
    typer.Option("--plan", help="Tell memory, time and bytes, by a short trial; keep nothing."),
]
SnapshotOption = Annotated[
    list[int] | None,
    typer.Option("--snapshot-epochs", help="Also publish the checkpoint after this epoch."),
]
CheckpointsOption = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", "-c", help="One, or one of each stream; default: the newest."),
]
EvaluatedStreamOption = Annotated[
    str | None, typer.Option("--stream", help="rgb or flow; default: the checkpoint's, or rgb.")
]
