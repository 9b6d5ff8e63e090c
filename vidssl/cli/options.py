"""Options that several commands share, one by one and in groups.

A group is a dataclass: a command that has a parameter of that type takes all its options
(:func:`vidssl.cli.command.terminal_command`). Help lists options under the headings below; what
belongs to one command alone stands first, under no heading of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vidssl.cli import completion
from vidssl.cli.parsing import division, settings_from
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds

RECIPE, DATA, RUN, EVERY_COMMAND = "Recipe", "Data", "Run", "Every command"
BOUNDS = "Bounds of a video (no real film meets the defaults)"

# ── of every command ─────────────────────────────────────────────────────────────────────────

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="VIDSSL_WORKSPACE",
        help="Folder of all artifacts.",
        rich_help_panel=EVERY_COMMAND,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON.", rich_help_panel=EVERY_COMMAND),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=EVERY_COMMAND)
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show the traceback of an error.", rich_help_panel=EVERY_COMMAND
    ),
]

# ── what a command works on ──────────────────────────────────────────────────────────────────

VideosArgument = Annotated[
    Path, typer.Argument(help="A folder (searched deeply), a video, or a text file of paths.")
]
StreamOption = Annotated[
    str,
    typer.Option(
        "--stream",
        help="The view to train, such as rgb or flow.",
        autocompletion=completion.complete_views,
    ),
]
EvaluatedStreamOption = Annotated[
    str | None,
    typer.Option(
        "--stream",
        help="rgb or flow; default: the checkpoint's, or rgb.",
        autocompletion=completion.complete_views,
    ),
]
CheckpointsOption = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", "-c", help="One, or one of each stream; default: the newest."),
]
PackOption = Annotated[
    str | None,
    typer.Option("--pack", help="Default: the newest that fits.", rich_help_panel=DATA),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="A split column of the annotations.", rich_help_panel=DATA),
]

SeveralSplitsOption = Annotated[
    str | None,
    typer.Option(
        "--splits",
        help="all, or names such as 1,2,3: evaluate on each split, and tell the mean.",
        rich_help_panel=DATA,
    ),
]

MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        help="How features are compared: centred, as published, or whitened (what changes within "
        "one video counts less).",
        autocompletion=completion.one_of("centred", "whitened"),
    ),
]

# ── numbers ──────────────────────────────────────────────────────────────────────────────────

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A shipped recipe, or a file such as ./my.toml; default: paper with CUDA, cpu "
        "without.",
        rich_help_panel=RECIPE,
        autocompletion=completion.complete_recipes,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        "--epochs", min=1, help="Passes over the training videos.", rich_help_panel=RECIPE
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Videos per step, over all GPUs.", rich_help_panel=RECIPE
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the recipe.",
        rich_help_panel=RECIPE,
    ),
]


@dataclass(frozen=True)
class OverrideOptions:
    """What the user changes of a recipe."""

    epochs: EpochsOption = None
    batch_size: BatchOption = None
    settings: SetOption = None

    def pairs(self, **more: Any) -> tuple[tuple[str, Any], ...]:
        """Returns (field, value) pairs as stages take them; `more` are further fields."""
        named = {**more, "epochs": self.epochs, "batch_size": self.batch_size}
        return settings_from(self.settings, **named)


# ── the run ──────────────────────────────────────────────────────────────────────────────────

SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of all chance in the run.", rich_help_panel=RUN)
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu or cuda; default: cuda where there is one.",
        rich_help_panel=RUN,
        autocompletion=completion.one_of("cpu", "cuda"),
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="Of backbones: bf16 (default with CUDA; unsound on a CPU) or float32.",
        rich_help_panel=RUN,
        autocompletion=completion.one_of("bf16", "float32"),
    ),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="torch.compile the backbone.", rich_help_panel=RUN)
]
RecomputeOption = Annotated[
    bool,
    typer.Option(
        "--recompute",
        help="Compute activations twice: less memory, a third more time.",
        rich_help_panel=RUN,
    ),
]
DecodeOption = Annotated[
    str,
    typer.Option(
        help="Who decodes JPEG: host, or gpu (nvJPEG; levels differ by one or two).",
        rich_help_panel=RUN,
        autocompletion=completion.one_of("host", "gpu"),
    ),
]
SnapshotOption = Annotated[
    list[int] | None,
    typer.Option(
        "--snapshot-epochs",
        help="Also publish the checkpoint after this epoch.",
        rich_help_panel=RUN,
    ),
]
SaveEveryOption = Annotated[
    float,
    typer.Option(
        "--save-every",
        min=0,
        help="Seconds between two saves of resume.pt.",
        rich_help_panel=RUN,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Demand an unfinished run to continue.", rich_help_panel=RUN),
]
NewOption = Annotated[
    bool,
    typer.Option("--new", help="Repeat a finished run under a new version.", rich_help_panel=RUN),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan; do nothing.", rich_help_panel=RUN)
]
PlanOption = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Tell memory, time and bytes, by a short trial; keep nothing.",
        rich_help_panel=RUN,
    ),
]


@dataclass(frozen=True)
class ComputeOptions:
    """How a training computes: fields of the stage's options of the same names."""

    seed: SeedOption = 0
    device: DeviceOption = None
    precision: PrecisionOption = None
    compile: CompileOption = False
    recompute: RecomputeOption = False
    decode: DecodeOption = "host"


@dataclass(frozen=True)
class RunOptions:
    """How a training is saved, resumed, repeated or only planned: likewise."""

    save_every: SaveEveryOption = 60.0
    resume: ResumeOption = False
    new: NewOption = False
    dry_run: DryRunOption = False


# ── bounds of a video ────────────────────────────────────────────────────────────────────────

MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        min=1,
        help="Leave out a video with larger frames.",
        rich_help_panel=BOUNDS,
    ),
]
MaxStallOption = Annotated[
    float,
    typer.Option(
        "--max-stall",
        help="Leave out a video that gives no new frame for so many seconds.",
        rich_help_panel=BOUNDS,
    ),
]
MaxFramesOption = Annotated[
    int,
    typer.Option(
        "--max-frames",
        min=1,
        help="Leave out a video with more frames.",
        rich_help_panel=BOUNDS,
    ),
]


@dataclass(frozen=True)
class VideoBoundOptions:
    """What a file may make the decoder do."""

    max_pixels: MaxPixelsOption = DEFAULT_BOUNDS.max_pixels
    max_stall: MaxStallOption = DEFAULT_BOUNDS.max_stall
    max_frames: MaxFramesOption = DEFAULT_BOUNDS.max_frames

    def bounds(self) -> VideoBounds:
        """Returns them as stages take them."""
        return VideoBounds(self.max_pixels, self.max_stall, self.max_frames)


# ── processes that divide the work ───────────────────────────────────────────────────────────

WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes; default: one per core.", rich_help_panel=RUN),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N (from 0); default: by Slurm's or torchrun's variables, else all.",
        rich_help_panel=RUN,
    ),
]
DaskOption = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Work on a dask.distributed cluster.",
        rich_help_panel=RUN,
    ),
]


RetryOption = Annotated[
    bool,
    typer.Option(
        "--retry-quarantined",
        help="Try the videos again that were left out; copy the others.",
        rich_help_panel=RUN,
    ),
]


@dataclass(frozen=True)
class ExtractionRunOptions:
    """Which processes work on the videos, and whether again or at all."""

    workers: WorkersOption = None
    shard: ShardOption = None
    dask: DaskOption = None
    new: NewOption = False
    retry_quarantined: RetryOption = False
    dry_run: DryRunOption = False

    def keywords(self) -> dict[str, Any]:
        """Returns the stage's options of these: workers and part, or dask; and the others."""
        processes = division(self.shard, self.workers, self.dask)
        again = {"new": self.new, "retry_quarantined": self.retry_quarantined}
        return {**processes, **again, "dry_run": self.dry_run}
