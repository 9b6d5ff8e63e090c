"""Commands that make checkpoints: pretrain, cotrain, import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vidssl.cli import completion
from vidssl.cli.app import PIPELINE, command
from vidssl.cli.options import (
    RECIPE,
    ComputeOptions,
    DryRunOption,
    NewOption,
    OverrideOptions,
    PackOption,
    PlanOption,
    RecipeOption,
    RunOptions,
    SeedOption,
    SnapshotOption,
    SplitOption,
    StreamOption,
)
from vidssl.cli.parsing import names_in
from vidssl.cli.terminal import Terminal


@command(panel=PIPELINE)
def pretrain(
    terminal: Terminal,
    *,
    stream: StreamOption = "rgb",
    method: Annotated[
        str | None,
        typer.Option(
            help="infonce (default), ubernce (needs labels), vicc, cpc, or the recipe's.",
            autocompletion=completion.one_of("infonce", "ubernce", "vicc", "cpc"),
        ),
    ] = None,
    recipe: RecipeOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Such as motion, s3d or r2d3d_18.", rich_help_panel=RECIPE),
    ] = None,
    overrides: OverrideOptions,
    pack: PackOption = None,
    split: SplitOption = None,
    init_from: Annotated[
        str | None, typer.Option(help="Checkpoint whose encoder is the start.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: STREAM-METHOD.")] = None,
    compute: ComputeOptions,
    snapshot_epochs: SnapshotOption = None,
    run: RunOptions,
    plan: PlanOption = False,
) -> None:
    """Learn an encoder of one stream, without labels (but for ubernce).

    Interrupted, the same command goes on where it stopped; finished, it returns what is there.

    Example:  vidssl pretrain --stream rgb

    Example:  vidssl pretrain --stream flow --epochs 100 --set temperature=0.1

    Example:  vidssl pretrain --recipe ./my.toml

    Example:  vidssl pretrain --stream rgb --plan

    Example:  vidssl pretrain --method vicc --snapshot-epochs 20

    Example:  torchrun --nproc-per-node 4 -m vidssl pretrain --stream rgb --recipe paper
    """
    from vidssl.stages import pretrain as stage

    options = stage.PretrainOptions(
        stream=stream, method=method, recipe=recipe, settings=overrides.pairs(backbone=backbone),
        pack=pack, split=split, init_from=init_from, name=name, trial=plan,
        snapshot_epochs=tuple(snapshot_epochs or ()), **vars(compute), **vars(run),
    )  # fmt: skip
    result = terminal.run(stage.run, options)
    told = {"method": method, "recipe": recipe, "pack": pack, "split": split}
    terminal.finish(result, _after(terminal, result, **told, device=compute.device))


@command(panel=PIPELINE)
def cotrain(
    terminal: Terminal,
    *,
    stream: StreamOption = "rgb",
    k: Annotated[int | None, typer.Option("--k", min=0, help="Mined positives per clip.")] = None,
    cycles: Annotated[
        int, typer.Option(min=0, help="Train both streams in turn, so many times, --stream first.")
    ] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="coclr (default), vicc, cmc or cocon (all views at once), or the recipe's.",
            autocompletion=completion.one_of("coclr", "vicc", "cmc", "cocon"),
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Those that cmc or cocon train, such as rgb,pose; default: rgb,flow.",
            autocompletion=completion.complete_views,
        ),
    ] = None,
    recipe: RecipeOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Where there is a student: its own, and no other.", rich_help_panel=RECIPE
        ),
    ] = None,
    overrides: OverrideOptions,
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
    compute: ComputeOptions,
    snapshot_epochs: SnapshotOption = None,
    run: RunOptions,
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
        stream=stream, method=method, cycles=cycles, views=names_in(views), recipe=recipe,
        settings=overrides.pairs(k=k, backbone=backbone), student=student, partner=partner,
        init_from=tuple(init_from or ()), pack=pack, split=split, name=name, trial=plan,
        snapshot_epochs=tuple(snapshot_epochs or ()), **vars(compute), **vars(run),
    )  # fmt: skip
    told = {"pack": pack, "device": compute.device}
    if not cycles:
        result = terminal.run(stage.run, options)
        terminal.finish(result, _after(terminal, result, **told))
        return
    results = []
    for result in terminal.run(stage.run_cycles, options):
        results.append(result)
        terminal.outline(result)
    terminal.json_out({"runs": [r.as_dict() for r in results]})
    terminal.propose(results[-1], _after(terminal, results[-1], **told))


@command("import", panel=PIPELINE)
def import_checkpoint(
    terminal: Terminal,
    file: Annotated[Path, typer.Argument(help="A published .pth.tar.")],
    method: Annotated[
        str,
        typer.Option(
            help="infonce, ubernce, coclr, vicc, dpc or cocon.",
            autocompletion=completion.one_of("infonce", "ubernce", "coclr", "vicc", "dpc", "cocon"),
        ),
    ],
    view: Annotated[
        str,
        typer.Option(
            help="What the network saw: rgb or flow.",
            autocompletion=completion.one_of("rgb", "flow"),
        ),
    ] = "rgb",
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


def _after(terminal: Terminal, result: Any, **told: str | None) -> Callable[[], str]:
    """Returns a function that returns the command to type next, given the new checkpoint."""
    from vidssl.cli import next_step

    return lambda: next_step.after_training(terminal.workspace, result.artifact, **told)
