"""What pretrain and cotrain share: options, the recipe's fit to the data, and the run itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vidssl import distributed
from vidssl.artifacts import Artifact, Run, Workspace
from vidssl.backbones import Encoder
from vidssl.checkpoints import encoder_file, save_encoder, weights_digest
from vidssl.clips import ClipLoader
from vidssl.engine import Place, fit
from vidssl.errors import UsageError, VidsslError
from vidssl.machine import cores
from vidssl.objectives import Objective
from vidssl.progress import SILENT, Progress
from vidssl.recipes import Recipe, load_recipe
from vidssl.stages.inputs import TrainingData
from vidssl.stages.result import StageResult
from vidssl.training_log import Row


@dataclass(frozen=True)
class TrainingOptions:
    """What the user may say of a training run.

    Attributes:
        recipe: a shipped recipe; None: `paper` with CUDA, `cpu` without.
        settings: (field, value) overrides of the recipe.
        name: of the artifact; None: STREAM-METHOD.
        resume: demand an unfinished run to continue.
        new: repeat a finished run under a new version.
        snapshot_epochs: also publish the checkpoint after these epochs.
        save_every: seconds between two writes of resume.pt.
    """

    stream: str = "rgb"
    method: str = "infonce"
    recipe: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    pack: str | None = None
    split: str | None = None
    name: str | None = None
    seed: int = 0
    resume: bool = False
    new: bool = False
    dry_run: bool = False
    device: str | None = None
    compile: bool = False
    threads: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    save_every: float = 60.0


def choose_device(wanted: str | None) -> str:
    """Gives "cuda" where there is one, else "cpu", unless the user wants one of them.

    Raises:
        UsageError: CUDA is wanted and absent, or the name is unknown.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise UsageError(f"there is no device {wanted}; there are cpu and cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device that torch can use; try --device cpu")
    return wanted


def choose_recipe(options: TrainingOptions) -> Recipe:
    """Loads the recipe the user named, or the machine's default, with the user's settings."""
    name = options.recipe or default_recipe(options.device)
    return load_recipe(name, options.method, options.stream, options.settings)


def default_recipe(device: str | None) -> str:
    """Gives `paper` with CUDA and `cpu` without."""
    return "paper" if choose_device(device) == "cuda" else "cpu"


def fit_to_data(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    """Makes defaults fit a small set; what the user set is left alone.

    A batch larger than the set cannot be filled, and a queue longer than an epoch would hold the
    same video twice, as its own negative.

    Returns:
        The recipe, and a sentence for each change.
    """
    if videos < 2:
        raise VidsslError(f"contrastive training needs at least 2 videos, and there is {videos}")
    notes = []
    batch = recipe.train.batch_size
    if batch > videos and "batch_size" not in recipe.explicit:
        batch = videos
        notes.append(f"batch size {recipe.train.batch_size} → {batch}: that many training videos")
        recipe = recipe.override("train", batch_size=batch)
    queue = getattr(recipe.config, "queue", None)
    most = max(videos // batch, 1) * batch
    if queue is not None and queue > most and "queue" not in recipe.explicit:
        notes.append(f"queue {queue} → {most}: a longer one would hold videos twice")
        fewer = {"k": most} if 0 < most < getattr(recipe.config, "k", 0) else {}
        recipe = recipe.override("config", queue=most, **fewer)
    return recipe, notes


@dataclass(frozen=True)
class TrainingPlan:
    """All that is decided before the first step.

    Attributes:
        stage: "pretrain" or "cotrain".
        make_objective: builds the method with its networks; called only when there is work.
        views: those trained at once, where there are several; empty: the options' stream.
    """

    stage: str
    name: str
    options: TrainingOptions
    recipe: Recipe
    data: TrainingData
    parents: Mapping[str, Artifact]
    make_objective: Callable[[], Objective]
    notes: list[str]
    views: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Gives the recipe part of the run's identity."""
        several = {"views": list(self.views)} if self.views else {}
        return self.recipe.as_dict() | several | {
            "stage": self.stage,
            "stream": self.options.stream,
            "split": self.data.split,
            "seed": self.options.seed,
            "precision": "bf16" if self.half_precision else "float32",
        }

    @property
    def half_precision(self) -> bool:
        return choose_device(self.options.device) == "cuda"

    def as_dict(self) -> dict[str, Any]:
        """Gives the plan as plain data, for --dry-run."""
        batch = self.recipe.train.batch_size
        steps = len(self.data.videos) // batch * self.recipe.train.epochs
        return {
            "makes": f"checkpoint/{self.name}",
            "inputs": {role: parent.label for role, parent in self.parents.items()},
            "training_videos": len(self.data.videos),
            "optimiser_steps": steps,
            "device": choose_device(self.options.device),
            "recipe": self.identity(),
        }


def carry_out(workspace: Workspace, plan: TrainingPlan, progress: Progress) -> StageResult:
    """Trains what the plan says, or returns the finished run, or continues an unfinished one.

    Raises:
        VidsslError: `--resume` without an unfinished run.
        Interrupted: a signal came; the work folder holds everything.
    """
    options = plan.options
    if options.dry_run:
        return StageResult(artifact=None, notes=plan.notes, plan=plan.as_dict())
    distributed.start(choose_device(options.device))
    if distributed.rank() != 0:
        return _follow(workspace, plan)
    opened = workspace.open_run(
        "checkpoint", plan.name, plan.identity(), plan.parents, options.new
    )
    if options.resume and not opened.started:
        raise VidsslError(
            f"there is no unfinished run of checkpoint/{plan.name} with this recipe and these "
            "inputs to resume; leave --resume away to start one"
        )
    with opened as run:
        artifact = run.finished
        distributed.from_rank_zero(None if artifact is not None else str(run.folder))
        if artifact is None:
            for note in plan.notes:
                progress.say(note)
            artifact = _train_and_publish(run, plan, progress)
    distributed.from_rank_zero(artifact.label)
    return StageResult(artifact=artifact, reused=run.finished is not None, notes=plan.notes)


def _follow(workspace: Workspace, plan: TrainingPlan) -> StageResult:
    """Trains as one of the ranks that publish nothing; waits for what rank 0 publishes."""
    folder = distributed.from_rank_zero(None)
    if folder is not None:
        _train(Path(folder), plan, SILENT, lambda objective, epoch: None)
    label = distributed.from_rank_zero(None)
    return StageResult(artifact=workspace.resolve("checkpoint", label), reused=folder is None)


def _train_and_publish(run: Run, plan: TrainingPlan, progress: Progress) -> Artifact:
    def snapshot(objective: Objective, epoch: int) -> None:
        if epoch in plan.options.snapshot_epochs and epoch < plan.recipe.train.epochs:
            files = _save_encoders(objective, run.folder)
            run.publish(weights_digest(objective.encoders), {"epochs": epoch}, only=files)

    objective, last = _train(run.folder, plan, progress, snapshot)
    _save_encoders(objective, run.folder)
    digest = weights_digest(objective.encoders)
    kept = ("loss", "knn", "purity", "feature_std", "feature_rank")
    known = {name: last[name] for name in kept if last.get(name) is not None}
    figures = {name: value for name, value in known.items() if math.isfinite(value)}  # type: ignore[arg-type]
    summary = {
        "method": plan.recipe.method,
        "backbone": plan.recipe.network.backbone,
        "epochs": plan.recipe.train.epochs,
        "training_videos": len(plan.data.videos),
    }
    return run.publish(digest, summary | figures)


def _save_encoders(objective: Objective, folder: Path) -> list[str]:
    for encoder in objective.encoders.values():
        save_encoder(encoder, folder)
    return [encoder_file(view) for view in objective.encoders]


def _train(
    folder: Path,
    plan: TrainingPlan,
    progress: Progress,
    epoch_done: Callable[[Objective, int], None],
) -> tuple[Objective, Row]:
    options, recipe = plan.options, plan.recipe
    device = distributed.local_device(choose_device(options.device))
    torch.manual_seed(options.seed)
    objective = plan.make_objective()
    if objective.needs.blocks != recipe.clip.blocks:
        raise UsageError(
            f"{recipe.method} takes clips whole, and here they are cut into {recipe.clip.blocks} "
            "blocks: choose --method cpc, or --set blocks=1"
        )
    loader = ClipLoader(
        plan.data.videos,
        objective.needs.views,
        recipe.clip,
        recipe.augment,
        recipe.train.batch_size,
        clips_per_video=objective.needs.clips,
        seed=options.seed,
        accumulate=recipe.train.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        threads=options.threads or cores(),
        pin=device.type == "cuda",
        presentations={
            part.spec.view: part.spec.presentation
            for part in objective.modules()
            if isinstance(part, Encoder)
        },
    )
    place = Place(
        device, plan.half_precision, compile=options.compile, save_every=options.save_every
    )
    last = fit(
        objective,
        loader,
        recipe.train,
        place,
        folder,
        seed=options.seed,
        progress=progress,
        description=plan.name,
        epoch_done=lambda epoch: epoch_done(objective, epoch),
    )
    return objective, last


def for_stream(options: TrainingOptions, stream: str) -> TrainingOptions:
    """Gives the same options for another stream."""
    return replace(options, stream=stream)
