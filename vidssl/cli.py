"""The command line: parse, call one stage, print. Delete this file and the library is whole.

Stages are imported inside the commands, so that `vidssl --help` is instant and training never
loads a video decoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from json import dumps
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from vidssl.errors import UsageError
from vidssl.terminal import (
    Command,
    Commands,
    JsonOption,
    Terminal,
    terminal_command,
)
from vidssl.version import VERSION

app = typer.Typer(
    name="vidssl",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

command = partial(terminal_command, app)

# ── options that several commands share ──────────────────────────────────────────────────────

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing.")]
NewOption = Annotated[
    bool, typer.Option("--new", help="Repeat a finished run under a new version.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of all chance in the run.")]
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
    str | None, typer.Option(help="Of the backbone: bf16 (default with CUDA) or float32.")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="torch.compile the backbone.")]
RecomputeOption = Annotated[
    bool,
    typer.Option("--recompute", help="Compute activations twice: less memory, a third more time."),
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
DEMO_WORKSPACE = Path("vidssl-demo")  # of its own, so that it is never the newest of yours


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


# ── data ─────────────────────────────────────────────────────────────────────────────────────


@command("extract-flow")
def extract_flow(
    terminal: Terminal,
    videos: VideosArgument,
    method: Annotated[
        str | None,
        typer.Option(
            help="tvl1 (the papers'; default with CUDA), dis (fast; default without), farneback "
            "or raft (a network)."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="tvl1: published (1.4 pairs/s on a core), balanced (0.09 px from it, 2.3/s) or "
            "fast (0.15 px, 7.0/s; on a GPU all are unmeasured); dis: medium, fast or ultrafast; "
            "raft: large or small. Default: the first."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="File of raft's weights; default: in torch's cache.")
    ] = "",
    device: DeviceOption = None,
    bound: Annotated[
        float | None,
        typer.Option(help="Pixels beyond which flow is clipped; default: a twelfth of --size."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Short side at which flow is computed (240; 0: as the videos are)."),
    ] = None,
    stored_size: Annotated[
        int | None, typer.Option(help="Short side at which it is stored (128; 0: as computed).")
    ] = None,
    codec: Annotated[
        str, typer.Option(help="jpeg1 to jpeg100; png or webp (lossless); coclr (as published).")
    ] = "jpeg95",
    name: Annotated[str, typer.Option(help="Name of the artifact.")] = "main",
    workers: WorkersOption = None,
    shard: ShardOption = None,
    dask: DaskOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Compute the optical flow of every video.

    A video that cannot be decoded is left out with its reason, and the exit code is 3.

    Several processes can divide the work, on as many machines as see the workspace; the one that
    is last publishes the artifact, which is the same however the work was divided.

    Example:  vidssl extract-flow VIDEOS/

    Example:  vidssl extract-flow VIDEOS/ --method tvl1 --codec png

    Example:  vidssl extract-flow VIDEOS/ --method raft --preset small --weights raft.pth

    Example:  vidssl extract-flow VIDEOS/ --shard 0/8

    Example:  srun --ntasks 8 vidssl extract-flow VIDEOS/
    """
    from vidssl.stages import extract_flow as stage

    given = _given(bound=bound, size=size, stored=stored_size)
    given |= {key: None for key in ("size", "stored") if given.get(key) == 0}
    config = stage.ExtractFlow(
        videos, method=method, preset=preset, weights=weights, device=device, codec=codec,
        name=name, new=new, dry_run=dry_run, **_division(shard, workers, dask), **given,
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: f"vidssl pack {quote(str(videos))}")


@command("flow-diff")
def flow_diff(
    terminal: Terminal,
    first: Annotated[str, typer.Argument(help="Flow artifact or pack, such as flow/main/v001.")],
    second: Annotated[str, typer.Argument(help="Another one of the same videos.")],
    every: Annotated[int, typer.Option(min=1, help="Compare every so many frames.")] = 1,
) -> None:
    """Compare two artifacts' flow of the same videos, pixel by pixel.

    Both are read in pixels, whatever codec and map they are stored with.

    Example:  vidssl flow-diff flow/main/v001 flow/tvl1/v001
    """
    from vidssl.stages import flow_diff as stage
    from vidssl.tables import flow_diff_tables

    result = terminal.run(stage.run, stage.FlowDiffOptions(first, second, every))
    terminal.json_out(result.as_dict())
    terminal.show(flow_diff_tables(result))


@command("extract-view")
def extract_view(
    terminal: Terminal,
    videos: VideosArgument,
    view: Annotated[str, typer.Option("--view", help="pose, mask, or one of your own.")],
    model: Annotated[
        str | None, typer.Option(help="The network; default: keypointrcnn or maskrcnn.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of its weights; default: in torch's cache.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Below which a detection is none (0.8).")
    ] = None,
    things: Annotated[
        bool, typer.Option("--things", help="Masks of all things, as CoCon's, not of people.")
    ] = False,
    detector_size: Annotated[
        int | None, typer.Option(help="Short side at which the network sees frames (192).")
    ] = None,
    stored_size: Annotated[
        int | None, typer.Option(help="Short side at which frames are stored (96; 0: as derived).")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Derive every so many frames, interpolate others (2).")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="webp or png (lossless), or jpeg1 to jpeg100.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any setting of the view."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the artifact; default: VIEW.")] = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    shard: ShardOption = None,
    dask: DaskOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Make a view of every video from its frames: heatmaps of joints, masks of people, or yours.

    Networks are torchvision's, and nothing is downloaded: without weights the command says where
    they are to be had. A view of your own is one file, named in VIDSSL_VIEWS.

    Example:  vidssl extract-view VIDEOS/ --view pose

    Example:  vidssl extract-view VIDEOS/ --view mask --weights maskrcnn.pth --detector-size 800
    """
    from vidssl.stages import extract_view as stage

    named = {"model": model, "weights": weights, "min_score": min_score}
    named |= {"things": things or None, "detector_size": detector_size}
    config = stage.ExtractView(
        videos, view=view, settings=_settings(settings, **named), stride=stride,
        stored=stored_size, codec=codec, name=name, device=device, new=new, dry_run=dry_run,
        **_division(shard, workers, dask),
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: f"vidssl pack {quote(str(videos))}")


@command()
def pack(
    terminal: Terminal,
    videos: VideosArgument,
    size: Annotated[
        int | None,
        typer.Option(help="Short side of RGB frames (144); 256 for the papers' evaluation."),
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of RGB's JPEG (90).")] = None,
    labels: Annotated[
        str, typer.Option(help="folders, none, or FILE.csv (path,label[,group][,splits]).")
    ] = "folders",
    group_pattern: Annotated[
        str | None, typer.Option(help="ucf101, hmdb51, or a regular expression for groups.")
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Such as rgb or rgb,flow,pose; default: all there is.")
    ] = None,
    derived: Annotated[
        list[str] | None,
        typer.Option(help="Artifact of a view, such as flow/main/v001; default: the newest."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the artifact.")] = "main",
    workers: WorkersOption = None,
    shard: ShardOption = None,
    dask: DaskOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Pack frames and derived views into shards, and note labels, groups and splits.

    Labels are optional: a folder of unlabelled files is fine. Packing again with other labels
    only writes new annotations.

    Example:  vidssl pack VIDEOS/

    Example:  vidssl pack VIDEOS/ --labels splits.csv --size 256

    Example:  vidssl pack VIDEOS/ --shard 0/8
    """
    from vidssl.stages import next_step
    from vidssl.stages import pack as stage

    given = _given(size=size, quality=quality)
    if views:
        given["views"] = _names(views)
    config = stage.Pack(
        videos, derived=tuple(derived or ()), labels=labels, group_pattern=group_pattern,
        name=name, new=new, dry_run=dry_run, **_division(shard, workers, dask), **given,
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: next_step.after_packing(terminal.workspace))


# ── training ─────────────────────────────────────────────────────────────────────────────────


@command()
def pretrain(
    terminal: Terminal,
    stream: StreamOption = "rgb",
    method: Annotated[
        str | None,
        typer.Option(help="infonce (default), ubernce (needs labels), vicc, cpc, or the recipe's."),
    ] = None,
    recipe: RecipeOption = None,
    backbone: Annotated[str | None, typer.Option(help="Such as tiny, s3d or r2d3d_18.")] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    settings: SetOption = None,
    pack: PackOption = None,
    split: SplitOption = None,
    init_from: Annotated[
        str | None, typer.Option(help="Checkpoint whose encoder is the start.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: STREAM-METHOD.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile: CompileOption = False,
    recompute: RecomputeOption = False,
    snapshot_epochs: SnapshotOption = None,
    save_every: SaveEveryOption = 60.0,
    resume: ResumeOption = False,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    plan: PlanOption = False,
) -> None:
    """Learn an encoder of one stream, without labels (but for ubernce).

    Interrupted, the same command goes on where it stopped; finished, it returns what is there.

    Example:  vidssl pretrain --stream rgb

    Example:  vidssl pretrain --stream flow --epochs 100 --set temperature=0.1

    Example:  vidssl pretrain --stream rgb --plan

    Example:  vidssl pretrain --method vicc --snapshot-epochs 20

    Example:  torchrun --nproc-per-node 4 -m vidssl pretrain --stream rgb --recipe paper
    """
    from vidssl.stages import pretrain as stage

    options = stage.PretrainOptions(
        stream=stream, method=method, recipe=recipe, pack=pack, split=split, init_from=init_from,
        settings=_settings(settings, backbone=backbone, epochs=epochs, batch_size=batch_size),
        name=name, seed=seed, device=device, precision=precision, compile=compile,
        recompute=recompute, resume=resume, new=new, dry_run=dry_run, plan=plan,
        snapshot_epochs=tuple(snapshot_epochs or ()), save_every=save_every,
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    told = {"method": method, "recipe": recipe, "pack": pack, "split": split, "device": device}
    terminal.finish(result, _after(terminal, result, **told))


@command()
def cotrain(
    terminal: Terminal,
    stream: StreamOption = "rgb",
    k: Annotated[int | None, typer.Option("--k", min=0, help="Mined positives per clip.")] = None,
    cycles: Annotated[
        int, typer.Option(min=0, help="Train both streams in turn, so many times.")
    ] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="coclr (default), vicc, cmc or cocon (all views at once), or the recipe's."
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="Those that cmc or cocon train, such as rgb,pose; default: rgb,flow."),
    ] = None,
    recipe: RecipeOption = None,
    backbone: Annotated[
        str | None, typer.Option(help="Where there is a student: its own, and no other.")
    ] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    settings: SetOption = None,
    student: Annotated[
        str | None, typer.Option(help="Checkpoint to train on; default: the stream's newest.")
    ] = None,
    partner: Annotated[
        str | None, typer.Option(help="Frozen checkpoint; default: the other stream's newest.")
    ] = None,
    init_from: Annotated[
        list[str] | None,
        typer.Option(help="Of cmc: checkpoint to start from, or newest; default: from scratch."),
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    name: Annotated[str | None, typer.Option(help="Default: STREAM-METHOD.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile: CompileOption = False,
    recompute: RecomputeOption = False,
    snapshot_epochs: SnapshotOption = None,
    save_every: SaveEveryOption = 60.0,
    resume: ResumeOption = False,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    plan: PlanOption = False,
) -> None:
    """Let one stream learn from what the other one finds alike, or train all views together.

    CoCLR and ViCC have a student and a frozen partner; CMC and CoCon train several views at once.

    Example:  vidssl cotrain --stream rgb --k 5

    Example:  vidssl cotrain --cycles 2 --k 5

    Example:  vidssl cotrain --method vicc --stream flow

    Example:  vidssl cotrain --method cmc --init-from newest

    Example:  vidssl cotrain --method cocon --views rgb,flow,pose,mask
    """
    from vidssl.stages import cotrain as stage

    options = stage.CotrainOptions(
        stream=stream, method=method, recipe=recipe, pack=pack, split=split,
        settings=_settings(
            settings, k=k, backbone=backbone, epochs=epochs, batch_size=batch_size
        ),
        student=student, partner=partner, cycles=cycles, init_from=tuple(init_from or ()),
        views=_names(views), name=name, seed=seed, device=device, precision=precision,
        compile=compile, recompute=recompute, resume=resume,
        new=new, dry_run=dry_run, plan=plan, snapshot_epochs=tuple(snapshot_epochs or ()),
        save_every=save_every,
    )  # fmt: skip
    if not cycles:
        result = terminal.run(stage.run, options)
        terminal.finish(result, _after(terminal, result, pack=pack, device=device))
        return
    results = []
    for result in terminal.run(stage.run_cycles, options):
        results.append(result)
        terminal.outline(result)
    terminal.json_out({"runs": [r.as_dict() for r in results]})
    terminal.propose(results[-1], _after(terminal, results[-1], pack=pack, device=device))


@command("import")
def import_checkpoint(
    terminal: Terminal,
    file: Annotated[Path, typer.Argument(help="A published .pth.tar.")],
    method: Annotated[str, typer.Option(help="infonce, ubernce, coclr, vicc, dpc or cocon.")],
    view: Annotated[str, typer.Option(help="What the network saw: rgb or flow.")] = "rgb",
    backbone: Annotated[
        str | None, typer.Option(help="Default: of the published runs, s3d or r2d3d_18.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Of a clip, or of a block of dpc and cocon.")
    ] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Between two frames.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of the input; default 128.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="In a clip of dpc and cocon.")] = None,
    pack: Annotated[
        str | None,
        typer.Option(help="Where BatchNorm statistics are measured if the file has none."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: VIEW-METHOD-published.")] = None,
    seed: SeedOption = 0,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Turn a checkpoint that a paper's authors published into one of ours.

    No code of the file is run. A missing or left-over tensor is an error that names it. What was
    trained on another form of the input, such as flow in three channels, is shown that form.

    Example:  vidssl import CoCLR-ucf101-rgb.pth.tar --method coclr

    Example:  vidssl import vicc-flow.pth.tar --method vicc --view flow --backbone r2plus1d
    """
    from vidssl.stages import import_checkpoint as stage

    options = stage.ImportOptions(
        file, method=method, view=view, backbone=backbone, frames=frames, stride=stride, size=size,
        blocks=blocks, pack=pack, name=name, seed=seed, new=new, dry_run=dry_run,
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    terminal.finish(result, _after(terminal, result, pack=pack))


# ── evaluation ───────────────────────────────────────────────────────────────────────────────


@command()
def probe(
    terminal: Terminal,
    checkpoint: CheckpointsOption = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="rgb, flow, or rgb,flow (their probabilities are averaged); default: the "
            "checkpoint's, or rgb."
        ),
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A shipped recipe whose probe settings to take.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the probe."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the checkpoint's.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train a linear classifier on frozen features; needs labels.

    Of two streams the probe of each is trained, or found, and their class probabilities are
    averaged. (`vidssl finetune --freeze` trains on clips drawn anew for every epoch instead.)

    Example:  vidssl probe

    Example:  vidssl probe --stream flow --split split2

    Example:  vidssl probe --stream rgb,flow

    Example:  vidssl probe --recipe vicc-cross-ucf101 --set weight_decay=1e-4
    """
    from vidssl.stages import probe as stage
    from vidssl.tables import classification_tables

    options = stage.ProbeOptions(
        checkpoints=tuple(checkpoint or ()), streams=_names(stream), pack=pack, split=split,
        recipe=recipe, settings=_settings(settings), name=name, seed=seed, device=device, new=new,
        dry_run=dry_run,
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    if result.report is not None:
        terminal.show(classification_tables("linear probe", result.report))
    terminal.notes(result.stage.notes)
    terminal.outline(result.stage)


@command()
def finetune(
    terminal: Terminal,
    checkpoint: CheckpointsOption = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="rgb, flow, or rgb,flow (a network each, whose probabilities are averaged); "
            "default: the checkpoint's, or rgb."
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Begin with fresh weights, for comparison.")
    ] = False,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help="Train only a linear classifier: the papers' linear probe."),
    ] = False,
    recipe: RecipeOption = None,
    backbone: Annotated[str | None, typer.Option(help="Of --scratch, such as tiny or s3d.")] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    settings: SetOption = None,
    crops: Annotated[
        str | None, typer.Option(help="Of the test: ten or centre; default: the recipe's.")
    ] = None,
    hop: Annotated[
        int | None, typer.Option(min=1, help="Of the test: frames between windows' starts.")
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    name: Annotated[str | None, typer.Option(help="Default: the checkpoint's.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile: CompileOption = False,
    recompute: RecomputeOption = False,
    save_every: SaveEveryOption = 60.0,
    resume: ResumeOption = False,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train encoder and classifier on labels, end to end, and test them: the papers' figures.

    The trained network is a checkpoint, NAME-finetuned. Interrupted, the same command goes on;
    with another --crops or --hop it tests again without training. With --freeze only a linear
    classifier is trained, on clips drawn anew for every epoch (`probe` trains one on features that
    are saved once, which is far quicker); the checkpoint is then NAME-linear.

    Example:  vidssl finetune

    Example:  vidssl finetune --stream rgb,flow --crops ten

    Example:  vidssl finetune --scratch --stream flow

    Example:  vidssl finetune --freeze

    Example:  torchrun --nproc-per-node 2 -m vidssl finetune --recipe coclr-ucf101
    """
    from vidssl.stages import finetune as stage
    from vidssl.tables import classification_tables

    options = stage.FinetuneOptions(
        checkpoints=tuple(checkpoint or ()), streams=_names(stream), scratch=scratch,
        freeze=freeze, recipe=recipe, pack=pack, split=split, crops=crops, hop=hop, name=name,
        settings=_settings(settings, backbone=backbone, epochs=epochs, batch_size=batch_size),
        seed=seed, device=device, precision=precision, compile=compile, recompute=recompute,
        save_every=save_every, resume=resume, new=new,
        dry_run=dry_run,
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    if result.test is not None and result.test.report is not None:
        network = "linear classifier" if freeze else "finetuned network"
        terminal.show(classification_tables(network, result.test.report))
    for training in result.trainings:
        terminal.outline(training)
    if result.test is not None:
        terminal.notes(result.test.stage.notes)
        terminal.outline(result.test.stage)


@command()
def retrieve(
    terminal: Terminal,
    queries: Annotated[
        list[Path] | None, typer.Argument(metavar="QUERY", help="Video files to look for.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Test videos query train videos: R@1 … R@50.")
    ] = False,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours to show.")] = 10,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw query and neighbours as a picture (.png or .jpg).")
    ] = None,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="Also show the query where it is in the pack.")
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="VIEW=FILE", help="Of the network that makes a query's view."),
    ] = None,
    checkpoint: CheckpointsOption = None,
    stream: Annotated[
        str | None, typer.Option(help="Such as rgb, or rgb,flow (their similarities are added).")
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    name: Annotated[str | None, typer.Option(help="Of an evaluation's artifact.")] = None,
    device: DeviceOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Find the nearest neighbours of a video, or measure how good they are.

    Example:  vidssl retrieve query.mp4 --sheet neighbours.png

    Example:  vidssl retrieve --evaluate --stream rgb,flow
    """
    if bool(queries) == evaluate:
        raise UsageError(
            "retrieve takes either query videos or --evaluate, such as: vidssl retrieve query.mp4"
        )
    found: dict[str, Any] = {
        "checkpoints": tuple(checkpoint or ()),
        "streams": _names(stream),
        "pack": pack,
        "device": device,
    }
    if queries:
        evaluating = {"--split": split, "--name": name, "--new": new, "--dry-run": dry_run}
        if given := [option for option, value in evaluating.items() if value]:
            raise UsageError(f"{given[0]} belongs to retrieve --evaluate, not to a query")
        found |= {"k": k, "keep_self": keep_self, "sheet": sheet}
        _query(terminal, tuple(queries), weights=_pairs("--weights", weights), **found)
    else:
        _evaluate(terminal, split=split, name=name, new=new, dry_run=dry_run, **found)


def _query(terminal: Terminal, videos: tuple[Path, ...], **options: Any) -> None:
    from vidssl.stages import query as stage
    from vidssl.tables import query_tables

    result = terminal.run(stage.run, stage.QueryOptions(videos, **options))
    terminal.json_out(result.as_dict())
    terminal.show(query_tables(result))
    for note in result.notes:
        terminal.show(note)
    terminal.left_out(result.quarantined)


def _evaluate(terminal: Terminal, **options: Any) -> None:
    from vidssl.stages import retrieve as stage
    from vidssl.tables import recall_table

    result = terminal.run(stage.run, stage.RetrieveOptions(**options))
    terminal.json_out(result.as_dict())
    if result.report is not None:
        terminal.show(recall_table([result.report]))
    terminal.notes(result.stage.notes)
    terminal.outline(result.stage)


@command()
def baselines(
    terminal: Terminal,
    backbone: Annotated[
        str | None, typer.Option(help="Also measure this backbone untrained, rgb and flow.")
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    new: NewOption = False,
) -> None:
    """Measure what needs no learning: colour histogram, mean frame, flow histogram.

    By nearest neighbours and by a linear probe. A number means something only beside these.

    Example:  vidssl baselines --backbone tiny
    """
    from vidssl.stages import baselines as stage
    from vidssl.tables import baseline_table

    options = stage.BaselineOptions(
        encoders=stage.untrained_specs(backbone, device) if backbone else (),
        pack=pack, split=split, split_seed=seed, seeds=(seed,), device=device, new=new,
    )  # fmt: skip
    results = terminal.run(stage.run, options)
    terminal.json_out([result.as_dict() for result in results])
    terminal.show(baseline_table(results))


@command()
def export(
    terminal: Terminal,
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="Default: the stream's newest.")
    ] = None,
    stream: EvaluatedStreamOption = None,
    format: Annotated[str, typer.Option(help="safetensors, onnx or torch-export.")] = "safetensors",
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; default: named by the checkpoint.")
    ] = None,
) -> None:
    """Write an encoder for other programs, with a card that says how to feed it.

    Example:  vidssl export --format onnx

    Example:  vidssl export rgb-coclr/v001 --format torch-export --out encoder
    """
    from vidssl.stages import export as stage

    options = stage.ExportOptions(format, checkpoint, stream, out)
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    for path in result.files:
        terminal.show(str(path))


# ── the workspace ────────────────────────────────────────────────────────────────────────────


@command()
def status(terminal: Terminal) -> None:
    """Show what is in the workspace, what came of what, and what has been overtaken.

    Example:  vidssl status
    """
    from vidssl.stages import status as stage
    from vidssl.tables import status_tree

    result = stage.run(terminal.workspace)
    terminal.json_out(result.as_dict())
    terminal.show(status_tree(result, stage.tree(result)))


@command()
def verify(
    terminal: Terminal,
    artifacts: Annotated[
        list[str] | None, typer.Argument(metavar="ARTIFACT", help="Default: all.")
    ] = None,
) -> None:
    """Check every byte of the artifacts against what was written, down to the frame.

    Example:  vidssl verify

    Example:  vidssl verify pack/main/v001
    """
    from vidssl.stages import verify as stage
    from vidssl.tables import verify_table

    options = stage.VerifyOptions(tuple(artifacts or ()))
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    terminal.show(verify_table(result))
    if not result.ok:
        raise typer.Exit(1)


@app.command(cls=Command)
def recipes(json: JsonOption = False) -> None:
    """List the shipped recipes, and what the papers report of theirs.

    Example:  vidssl recipes
    """
    from dataclasses import asdict

    from vidssl.recipes import recipe_card, recipe_names

    cards = {name: recipe_card(name) for name in recipe_names()}
    if json:
        typer.echo(dumps({name: asdict(card) for name, card in cards.items()}, indent=1))
        return
    width = max(map(len, cards))
    for name, card in cards.items():
        typer.echo(f"{name:<{width}}  {card.title}")
        if card.reports:
            typer.echo(f"{'':<{width}}  reports {card.reports}")


@command(workspace=DEMO_WORKSPACE)
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
    from vidssl.stages import demo as stage
    from vidssl.tables import demo_tables

    options = stage.DemoOptions(
        seed=seed, workers=workers, device=device, settings=_settings(settings),
        **_given(clips=clips),
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    terminal.show(demo_tables(result, terminal.workspace.root))


# ── shared by commands ───────────────────────────────────────────────────────────────────────


def _settings(texts: list[str] | None, **named: Any) -> tuple[tuple[str, Any], ...]:
    """Gives (field, value) pairs from `--set FIELD=VALUE` and from options of their own."""
    return (*_given(**named).items(), *_pairs("--set", texts))


def _pairs(option: str, texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Gives (name, value) of texts such as `lr=0.01`."""
    pairs = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            example = {"--set": "FIELD=VALUE, such as --set lr=0.01"}.get(option, "VIEW=FILE")
            raise UsageError(f"{option} takes {example}, not {text!r}")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def _division(shard: str | None, workers: int | None, dask: str | None) -> dict[str, Any]:
    """Gives the options that say who works on the videos: workers, part, dask."""
    from vidssl.stages.parts import choose_part

    if dask is None:
        return {"workers": workers, "part": choose_part(shard, os.environ)}
    for option, value in (("--shard", shard), ("--workers", workers)):
        if value is not None:
            raise UsageError(f"the dask cluster divides the work by itself: leave {option} out")
    return {"dask": dask}


def _after(terminal: Terminal, result: Any, **told: str | None) -> Callable[[], str]:
    """Gives what tells the command that goes on from a checkpoint."""
    from vidssl.stages import next_step

    return lambda: next_step.after_training(terminal.workspace, result.artifact, **told)


def _names(text: str | None) -> tuple[str, ...]:
    """Gives the names in a text such as `rgb,flow`."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _given(**values: Any) -> dict[str, Any]:
    """Gives the values that are not None: what is not said is the stage's own default."""
    return {name: value for name, value in values.items() if value is not None}
