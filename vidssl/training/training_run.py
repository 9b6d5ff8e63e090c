"""Runs one training as its plan says: trains, publishes snapshots and the last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidssl.backbones import Encoder
from vidssl.base import distributed
from vidssl.base.cores_and_memory import cores
from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.clips.frame_cache import with_frame_cache
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.kept_batches import FixedPart
from vidssl.clips.loader import ClipLoader
from vidssl.engine.collapse import collapse_sentence
from vidssl.engine.log import Row
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.resume import drop_earlier_states
from vidssl.methods import Method
from vidssl.recipes.recipe import Recipe
from vidssl.shards import open_shards
from vidssl.training.data import TrainingData
from vidssl.training.learned_verdict import (
    classifier_sentence,
    compare,
    verdict_figures,
    verdict_sentence,
)
from vidssl.training.options import ResolvedOptions
from vidssl.training.trial_steps import CountedFrames, Forecast, try_out
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import save_encoder, save_tensors, weights_digest
from vidssl.workspace.kept_arrays_of import keeper_of
from vidssl.workspace.run import Run
from vidssl.workspace.run_diff import nothing_to_resume, report_other_runs
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.summaries import COLLAPSED, LITTLE
from vidssl.workspace.workspace import Workspace

# Figures of the log's last row that the checkpoint's summary keeps.
FIGURES = (
    "loss",
    "knn",
    "purity",
    "prototype_entropy",
    "prototype_usage",
    "aligned",
    "unaligned",
    "feature_std",
    "feature_rank",
)


@dataclass(frozen=True)
class TrainingPlan:
    """All that is decided before the first step; later steps decide nothing.

    Attributes:
        stage: "pretrain", "cotrain" or "finetune".
        name: of the checkpoint.
        options: their recipe is fitted to the data and to the encoder that training starts from.
        parents: the artifacts that the checkpoint is made from, by role.
        make_method: builds the method with its networks; called only when there is work.
        notes: sentences the user should see.
        views: all that are trained at once, where that is more than the view of the options.
        more: further fields of the run's identity.
    """

    stage: str
    name: str
    options: ResolvedOptions
    data: TrainingData
    parents: Mapping[str, Artifact]
    make_method: Callable[[], Method]
    notes: list[str]
    views: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Every number of the training."""
        return self.options.recipe

    def identity(self) -> dict[str, Any]:
        """Returns the recipe part of the run's identity."""
        optional: dict[str, Any] = {"streams": list(self.views)} if self.views else {}
        if self.options.decode != "host":  # another decoder gives other pixel values
            optional["decode"] = self.options.decode
        return (
            self.recipe.as_dict()
            | optional
            | {
                "stage": self.stage,
                "stream": self.options.view,
                "split": self.data.split,
                "seed": self.options.seed,
                "precision": self.options.precision,
            }
            | dict(self.more)
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data, for --dry-run."""
        batch = self.recipe.train.batch_size
        steps = len(self.data.videos) // batch * self.recipe.train.epochs
        return {
            "makes": f"checkpoint/{self.name}",
            "inputs": {role: parent.label for role, parent in self.parents.items()},
            "training_videos": len(self.data.videos),
            "optimiser_steps": steps,
            "device": self.options.device,
            "recipe": self.identity(),
        }


def run_training(workspace: Workspace, plan: TrainingPlan, progress: Progress) -> StageResult:
    """Trains what a plan says: continues the unfinished run, or returns the finished one.

    All ranks call it; rank 0 publishes.

    Raises:
        VidsslError: `--resume` without an unfinished run.
        Interrupted: a signal came; the work folder holds everything.
    """
    options = plan.options
    if options.dry_run:
        return StageResult(artifact=None, notes=plan.notes, plan=plan.as_dict())
    distributed.start(options.device)
    if options.trial:
        whole = plan.as_dict() | {"forecast": _forecast(plan, progress).as_dict()}
        return StageResult(artifact=None, notes=plan.notes, plan=whole)
    if distributed.rank() != 0:
        return _train_unpublished(workspace, plan)
    opened = workspace.open_run("checkpoint", plan.name, plan.identity(), plan.parents, options.new)
    if options.resume and not opened.started:
        raise VidsslError(nothing_to_resume([opened]))
    report_other_runs(opened, progress)
    with opened as run:
        artifact = run.finished
        distributed.from_rank_zero(None if artifact is not None else str(run.folder))
        if artifact is None:
            for note in plan.notes:
                progress.say(note)
            artifact = _train_and_publish(run, plan, progress)
    distributed.from_rank_zero(artifact)
    doubts = [artifact.summary[key] for key in (COLLAPSED, LITTLE) if key in artifact.summary]
    return StageResult(artifact, reused=run.finished is not None, notes=plan.notes + doubts)


def _train_unpublished(workspace: Workspace, plan: TrainingPlan) -> StageResult:
    """Trains on a rank other than 0, and returns what rank 0 publishes."""
    folder = distributed.from_rank_zero(None)
    if folder is not None:
        _train(Path(folder), plan, SILENT, lambda method, epoch: None)
    # Its manifest is not read: on another machine a folder may be seen some seconds later.
    artifact = distributed.from_rank_zero(None)
    artifact = replace(artifact, path=workspace.root / artifact.label)
    return StageResult(artifact=artifact, reused=folder is None)


def _train_and_publish(run: Run, plan: TrainingPlan, progress: Progress) -> Artifact:
    def snapshot(method: Method, epoch: int) -> None:
        if epoch in plan.options.snapshot_epochs and epoch < plan.recipe.train.epochs:
            files, digest = _save_weights(method, run.folder), _digest(method)
            # A run that was killed between a snapshot and the next save does this epoch again.
            if all(a.digest != digest for a in run.workspace.artifacts(run.kind, run.name)):
                run.publish(digest, {"epochs": epoch}, only=files)

    method, last = _train(run.folder, plan, progress, snapshot)
    _save_weights(method, run.folder)
    digest = _digest(method)
    known = {name: last[name] for name in FIGURES if last.get(name) is not None}
    figures = {name: value for name, value in known.items() if math.isfinite(value)}  # type: ignore[arg-type]
    summary = {
        "method": plan.recipe.method,
        "backbone": plan.recipe.network.backbone,
        "epochs": plan.recipe.train.epochs,
        "training_videos": len(plan.data.videos),
    }
    if said := collapse_sentence(last, plan.recipe.train, method):
        summary[COLLAPSED] = said
    verdict = _verdict(method, plan, last, progress)
    drop_earlier_states(run.folder)
    return run.publish(digest, summary | figures | verdict)


def _verdict(
    method: Method, plan: TrainingPlan, last: Row, progress: Progress
) -> dict[str, float | str]:
    """Returns what the encoders do beyond untrained ones, for the summary."""
    if plan.stage == "finetune":  # its test says how good it is
        classes = len(plan.more["classes"])
        said = classifier_sentence(plan.name, last.get("loss"), classes)
        return {LITTLE: said} if said else {}
    videos, seed = plan.data.videos, plan.options.seed
    device = distributed.local_device(plan.options.device)
    found = []
    with progress.task("compare with untrained", len(method.encoders), "encoder") as task:
        for encoder in method.encoders.values():
            found.append(compare(encoder, plan.data.pack, videos, seed, device))
            task.advance()
    train = plan.recipe.train
    samples = train.batch_size // (train.accumulate * distributed.world_size())
    said = verdict_sentence(plan.name, found, last.get("loss"), method.chance_loss(samples))
    return verdict_figures(found) | ({LITTLE: said} if said else {})


def _save_weights(method: Method, folder: Path) -> list[str]:
    files = [save_encoder(encoder, folder) for encoder in method.encoders.values()]
    if method.extra_state:
        files.append(save_tensors(method.extra_state, folder))
    return [file.name for file in files]


def _digest(method: Method) -> str:
    return weights_digest(method.encoders, method.extra_state)


def _train(
    folder: Path,
    plan: TrainingPlan,
    progress: Progress,
    epoch_done: Callable[[Method, int], None],
) -> tuple[Method, Row]:
    method, loader, runtime = _build(plan, plan.data.videos, progress, keep_decoded=True)
    with distributed.lost_process_is_one_sentence():
        last = fit(
            method,
            loader,
            plan.recipe.train,
            runtime,
            folder,
            seed=plan.options.seed,
            progress=progress,
            description=plan.name,
            epoch_done=lambda epoch: epoch_done(method, epoch),
            name_videos=lambda numbers: _ids(plan.data.pack, numbers),
        )
    return method, last


def _ids(pack: Artifact, numbers: Sequence[int]) -> list[str]:
    """Returns the ids of some videos of a pack."""
    with open_shards(pack) as reader:
        return [reader.video_id(number) for number in numbers]


def _build(
    plan: TrainingPlan, videos: TrainingVideos, progress: Progress, keep_decoded: bool = False
) -> tuple[Method, ClipLoader, RuntimeConfig]:
    """Builds the method, the loader and the runtime settings; the seed fixes all random values.

    Args:
        keep_decoded: on a CPU, decode the frames of a small set once.
    """
    options, recipe = plan.options, plan.recipe
    device = distributed.local_device(options.device)
    torch.manual_seed(options.seed)
    method = plan.make_method()
    presentations = {
        module.spec.view: module.spec.presentation
        for module in method.modules()
        if isinstance(module, Encoder)
    }
    for sentence in _other_presentations(recipe, presentations):
        progress.say(sentence)
    if keep_decoded and device.type == "cpu":
        videos = with_frame_cache(videos, method.batch_spec.views)
    loader = ClipLoader(
        videos,
        method.batch_spec.views,
        recipe.clip,
        recipe.augment,
        recipe.train.batch_size,
        clips_per_video=method.batch_spec.clips,
        seed=options.seed,
        accumulate=recipe.train.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        threads=options.threads or cores(),
        device=device,
        presentations=presentations,
        decode=options.decode,
        last_only=method.batch_spec.last_only,
        draws=recipe.train.draws,
        fixed_parts=_fixed_parts(method, plan.data.pack),
    )
    runtime = RuntimeConfig(
        device,
        half_precision=options.precision == "bf16",
        compile=options.compile,
        recompute=options.recompute,
        save_every=options.save_every,
    )
    return method, loader, runtime


def _fixed_parts(method: Method, pack: Artifact) -> dict[str, FixedPart]:
    """Returns the fixed part of the encoders of each view, where all of them have the same.

    Encoders of one backbone have the same: a fixed part has no weights.
    """
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    found = {}
    for view in {encoder.spec.view for encoder in encoders}:
        of_view = [encoder for encoder in encoders if encoder.spec.view == view]
        backbone, part = of_view[0].spec.backbone, of_view[0].fixed_part
        if part is not None and {e.spec.backbone for e in of_view} == {backbone}:
            found[view] = FixedPart(part, keeper_of(pack, backbone))
    return found


def _forecast(plan: TrainingPlan, progress: Progress) -> Forecast:
    """Returns what the run would take, measured by a few of its steps."""
    frames = CountedFrames(plan.data.videos.reader)
    method, loader, runtime = _build(plan, replace(plan.data.videos, reader=frames), progress)
    return try_out(method, loader, plan.recipe.train, runtime, plan.options.seed, frames, progress)


def _other_presentations(recipe: Recipe, presentations: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each view that is not shown in the form of the recipe's policy.

    An encoder to start from keeps the form that it was trained on.
    """
    policy = recipe.augment
    alone = ", and its colour is left alone" if policy.motion_as_picture else ""
    wanted = {view: get_view(view).shown_as(policy.presentation) for view in presentations}
    return [
        f"the policy {policy.policy} shows {view} as {wanted[view]}, but its encoder began with "
        f"{shown}: it goes on seeing that{alone}"
        for view, shown in presentations.items()
        if shown != wanted[view]
    ]
