"""Commands that use checkpoints: probe, finetune, retrieve, baselines, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vidssl.base.errors import UsageError
from vidssl.cli import completion
from vidssl.cli.app import EVALUATION, PIPELINE, command
from vidssl.cli.options import (
    RECIPE,
    CheckpointsOption,
    ComputeOptions,
    DeviceOption,
    DryRunOption,
    EvaluatedStreamOption,
    MetricOption,
    NewOption,
    OverrideOptions,
    PackOption,
    RecipeOption,
    RunOptions,
    SeedOption,
    SeveralSplitsOption,
    SplitOption,
    VideoBoundOptions,
)
from vidssl.cli.parsing import names_in, pairs_from, settings_from, splits_in
from vidssl.cli.terminal import Terminal


@command(panel=EVALUATION)
def probe(
    terminal: Terminal,
    checkpoint: CheckpointsOption = None,
    mode: Annotated[
        str,
        typer.Option(
            help="linear (a classifier is trained) or knn (the nearest training videos vote).",
            autocompletion=completion.one_of("linear", "knn"),
        ),
    ] = "linear",
    stream: Annotated[
        str | None,
        typer.Option(
            help="rgb, flow, or rgb,flow (their probabilities are averaged); default: the "
            "checkpoint's, or rgb.",
            autocompletion=completion.complete_views,
        ),
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    splits: SeveralSplitsOption = None,
    metric: MetricOption = "centred",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="A shipped recipe, or a file, whose probe settings to take.",
            rich_help_panel=RECIPE,
            autocompletion=completion.complete_recipes,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Override a field of the probe.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the checkpoint's.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train a linear classifier on frozen features, or let neighbours vote; needs labels.

    Of two streams the probe of each is trained, or found, and their class probabilities are
    averaged. (`vidssl finetune --freeze` trains on clips drawn anew for every epoch instead.)

    Example:  vidssl probe

    Example:  vidssl probe --stream flow --split split2

    Example:  vidssl probe --stream rgb,flow

    Example:  vidssl probe --recipe vicc-cross-ucf101 --set weight_decay=1e-4

    Example:  vidssl probe --mode knn --set k=10 --set temperature=0.1

    Example:  vidssl probe --splits all
    """
    from vidssl.cli.tables import baselines_beside, classification_tables
    from vidssl.stages import probe as stage

    title = "vote of neighbours" if mode == "knn" else "linear probe"
    several = splits_in(split, splits)
    options = stage.ProbeOptions(
        checkpoints=tuple(checkpoint or ()), streams=names_in(stream), pack=pack,
        split=None if several else split, metric=metric, mode=mode, recipe=recipe,
        settings=settings_from(settings), name=name, seed=seed, device=device, new=new,
        dry_run=dry_run,
    )  # fmt: skip
    if several:
        _over_splits(terminal, title, stage.run, several, options)
        return
    result = terminal.run(stage.run, options)
    terminal.json_out(result.as_dict())
    if result.report is not None:
        terminal.show(classification_tables(title, result.report))
        if mode == "linear":  # baselines are measured by a linear probe
            terminal.show(baselines_beside(result.baselines))
    terminal.notes(result.stage.notes)
    terminal.outline(result.stage)


def _over_splits(
    terminal: Terminal, title: str, stage: Any, wanted: tuple[str, ...], options: Any
) -> None:
    """Evaluates on each of several splits, and prints a row for each and the mean."""
    from vidssl.cli.split_tables import notes_of_splits, over_splits_table
    from vidssl.stages.over_splits import run_over_splits

    found = terminal.run(partial(run_over_splits, stage, wanted), options)
    terminal.json_out(found.as_dict())
    if found.means:
        terminal.show(over_splits_table(title, found))
    terminal.notes(notes_of_splits(found))
    for result in found.splits.values():
        terminal.outline(result.stage)


@command(panel=EVALUATION)
def finetune(
    terminal: Terminal,
    *,
    checkpoint: CheckpointsOption = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="rgb, flow, or rgb,flow (a network each, whose probabilities are averaged); "
            "default: the checkpoint's, or rgb.",
            autocompletion=completion.complete_views,
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
    backbone: Annotated[
        str | None,
        typer.Option(help="Of --scratch, such as motion or s3d.", rich_help_panel=RECIPE),
    ] = None,
    overrides: OverrideOptions,
    crops: Annotated[
        str | None,
        typer.Option(
            help="Of the test: ten or centre; default: the recipe's.",
            autocompletion=completion.one_of("ten", "centre"),
        ),
    ] = None,
    hop: Annotated[
        int | None, typer.Option(min=1, help="Of the test: frames between windows' starts.")
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    name: Annotated[str | None, typer.Option(help="Default: the checkpoint's.")] = None,
    compute: ComputeOptions,
    run: RunOptions,
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
    from vidssl.cli.tables import classification_tables
    from vidssl.stages import finetune as stage

    options = stage.FinetuneOptions(
        checkpoints=tuple(checkpoint or ()), streams=names_in(stream), scratch=scratch,
        freeze=freeze, recipe=recipe, settings=overrides.pairs(backbone=backbone), crops=crops,
        hop=hop, pack=pack, split=split, name=name, **vars(compute), **vars(run),
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


@command(panel=EVALUATION)
def retrieve(
    terminal: Terminal,
    queries: Annotated[
        list[Path] | None, typer.Argument(metavar="QUERY", help="Video files to look for.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Test videos query train videos: R@1 … R@50, mAP.")
    ] = False,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours to show.")] = 10,
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
        str | None,
        typer.Option(
            help="Such as rgb, or rgb,flow (their similarities are added).",
            autocompletion=completion.complete_views,
        ),
    ] = None,
    pack: PackOption = None,
    split: SplitOption = None,
    splits: SeveralSplitsOption = None,
    metric: MetricOption = "centred",
    name: Annotated[str | None, typer.Option(help="Of an evaluation's artifact.")] = None,
    device: DeviceOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    *,
    bounds: VideoBoundOptions,
) -> None:
    """Find the nearest neighbours of a video, or measure how good they are.

    Example:  vidssl retrieve query.mp4 --sheet neighbours.png

    Example:  vidssl retrieve --evaluate --stream rgb,flow

    Example:  vidssl retrieve --evaluate --split 1,2,3
    """
    if bool(queries) == evaluate:
        raise UsageError(
            "retrieve takes either query videos or --evaluate, such as: vidssl retrieve query.mp4"
        )
    found: dict[str, Any] = {
        "checkpoints": tuple(checkpoint or ()),
        "streams": names_in(stream),
        "pack": pack,
        "metric": metric,
        "device": device,
    }
    if queries:
        evaluating = {
            "--split": split,
            "--splits": splits,
            "--name": name,
            "--new": new,
            "--dry-run": dry_run,
        }
        if given := [option for option, value in evaluating.items() if value]:
            raise UsageError(f"{given[0]} belongs to retrieve --evaluate, not to a query")
        found |= {"k": k, "keep_self": keep_self, "sheet": sheet}
        found |= {"weights": pairs_from("--weights", weights), "bounds": bounds.bounds()}
        _query(terminal, tuple(queries), **found)
    else:
        several = splits_in(split, splits)
        found |= {"split": None if several else split, "name": name}
        _evaluate(terminal, several, new=new, dry_run=dry_run, **found)


def _query(terminal: Terminal, videos: tuple[Path, ...], **options: Any) -> None:
    from vidssl.cli.tables import query_tables
    from vidssl.stages import retrieve as stage

    result = terminal.run(stage.run, stage.RetrieveOptions(videos, **options))
    terminal.json_out(result.as_dict())
    terminal.show(query_tables(result))
    for note in result.notes:
        terminal.show(note)
    terminal.left_out(result.quarantined)


def _evaluate(terminal: Terminal, several: tuple[str, ...], **options: Any) -> None:
    from vidssl.cli.tables import baselines_beside, recall_table
    from vidssl.stages import evaluate_retrieval as stage

    chosen = stage.EvaluateRetrievalOptions(**options)
    if several:
        _over_splits(terminal, "retrieval", stage.run, several, chosen)
        return
    result = terminal.run(stage.run, chosen)
    terminal.json_out(result.as_dict())
    if result.report is not None:
        terminal.show(recall_table([result.report]))
        terminal.show(baselines_beside(result.baselines))
    terminal.notes(result.stage.notes)
    terminal.outline(result.stage)


@command(panel=EVALUATION)
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

    Example:  vidssl baselines --backbone motion
    """
    from vidssl.cli.tables import baseline_table
    from vidssl.stages import baselines as stage

    options = stage.BaselineOptions(
        encoders=stage.untrained_specs(backbone, device) if backbone else (),
        pack=pack, split=split, split_seed=seed, seeds=(seed,), device=device, new=new,
    )  # fmt: skip
    results = terminal.run(stage.run, options)
    terminal.json_out([result.as_dict() for result in results])
    terminal.show(baseline_table(results))
    # They are about the split, which is the same for all.
    terminal.notes(list(dict.fromkeys(n for r in results for n in r.retrieval.stage.notes)))


@command(panel=PIPELINE)
def export(
    terminal: Terminal,
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="Default: the stream's newest.")
    ] = None,
    stream: EvaluatedStreamOption = None,
    format: Annotated[
        str,
        typer.Option(
            help="safetensors, onnx or torch-export.",
            autocompletion=completion.one_of("safetensors", "onnx", "torch-export"),
        ),
    ] = "safetensors",
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
