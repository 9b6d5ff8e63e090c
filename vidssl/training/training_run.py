"""What pretrain and cotrain share: options, the recipe's fit to the data, and the run itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base import distributed
from vidssl.base.device import choose_device
from vidssl.base.errors import (
    MissingInput,
    UsageError,
    VidsslError,
    nearest_name,
    require,
)
from vidssl.base.progress import SILENT, Progress
from vidssl.base.resources import cores
from vidssl.base.text import agree, counted
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_cache import with_frame_cache
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader, batch_maker_class
from vidssl.engine.log import Row
from vidssl.engine.loop import RuntimeConfig, collapse, fit
from vidssl.methods import METHODS, METHODS_BY_STAGE, Method
from vidssl.recipes.recipe import (
    NetworkSpec,
    Recipe,
    load_recipe,
    recipe_card,
)
from vidssl.training.data import TrainingData
from vidssl.training.forecast import Forecast
from vidssl.training.trial import CountedFrames, try_out
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.checkpoints import (
    checkpoint_tensors,
    save_encoder,
    save_tensors,
    weights_digest,
)
from vidssl.workspace.results import StageResult
from vidssl.workspace.run_diff import nothing_to_resume, report_other_runs
from vidssl.workspace.summaries import COLLAPSED
from vidssl.workspace.workspace import Run, Workspace

# Of the last row of the log, what an artifact's summary keeps.
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
PRECISIONS = ("bf16", "float32")


@dataclass(frozen=True)
class TrainingOptions:
    """What the user may say of a training run.

    Attributes:
        method: one of the stage's; None: the recipe's, or else the stage's first.
        recipe: a shipped recipe; None: `paper` with CUDA, `cpu` without.
        settings: (field, value) overrides of the recipe.
        name: of the artifact; None: STREAM-METHOD.
        resume: demand an unfinished run to continue.
        new: repeat a finished run under a new version.
        snapshot_epochs: also publish the checkpoint after these epochs.
        precision: of backbones, "bf16" or "float32"; None: bf16 with CUDA. (On a CPU torch's bf16
            kernels are not sound: docs/benchmarks.md.)
        recompute: compute activations twice to save memory.
        decode: who decodes JPEG, one of :data:`vidssl.clips.loader.DECODERS`.
        plan: only tell what it would take, by a few steps that are written nowhere.
        save_every: seconds between two writes of resume.pt.
    """

    stream: str = "rgb"
    method: str | None = None
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
    precision: str | None = None
    compile: bool = False
    recompute: bool = False
    decode: str = "host"
    plan: bool = False
    threads: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    save_every: float = 60.0


def check_options(options: TrainingOptions, stage: str) -> Recipe:
    """Checks what options say by themselves, and gives the recipe they mean.

    Stages do this before they look anything up: a mistyped word is told before a missing input.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(options.stream)
    batch_maker_class(torch.device(choose_device(options.device)), options.decode)
    choose_precision(options)
    if options.compile and options.recompute:
        raise UsageError(
            "torch compiles no recomputed backbone: leave --compile or --recompute away"
        )
    if options.name is not None:
        check_name(options.name)
    recipe = choose_recipe(options, stage)
    METHODS[recipe.method].check_blocks(recipe.config, recipe.clip.blocks)
    last = recipe.train.epochs
    for epoch in options.snapshot_epochs:
        require("--snapshot-epochs", epoch, 1 <= epoch <= last, f"from 1 to {last}, the last one")
    return recipe


def choose_precision(options: TrainingOptions) -> str:
    """Returns what backbones compute in: bf16 with CUDA, else float32, unless the user says.

    Raises:
        UsageError: the name is unknown.
    """
    if options.precision is None:
        return "bf16" if choose_device(options.device) == "cuda" else "float32"
    if options.precision not in PRECISIONS:
        known = " and ".join(PRECISIONS)
        raise UsageError(f"there is no precision {options.precision}; there are {known}")
    return options.precision


def choose_recipe(options: TrainingOptions, stage: str) -> Recipe:
    """Loads the recipe the user named, or the machine's default, with the user's settings."""
    name = options.recipe or default_recipe(options.device)
    method = choose_method(stage, options.method, name)
    return load_recipe(name, method.name, options.stream, options.settings)


def choose_method(stage: str, wanted: str | None, recipe: str) -> type[Method]:
    """Returns the method a stage trains with: the one named, the recipe's, or the stage's first.

    Raises:
        UsageError: the stage has no such method, or the recipe is of another one.
    """
    methods = METHODS_BY_STAGE[stage]
    # Also by the name that checkpoints and recipes bear, where that is another word.
    by_name = {method.name: method for method in methods.values()} | methods
    own = recipe_card(recipe).method
    if own is not None and METHODS[own] not in methods.values():
        raise UsageError(
            f"recipe {recipe} is of {own}; try: vidssl {_stage_of(own)} --recipe {recipe}"
        )
    if wanted is None:
        return METHODS[own] if own is not None else next(iter(methods.values()))
    if wanted not in by_name:
        elsewhere = f"; {wanted} is of vidssl {_stage_of(wanted)}" if wanted in METHODS else ""
        raise UsageError(
            f"{stage} has no method {wanted}{nearest_name(wanted, methods)}; "
            f"it has {', '.join(methods)}{elsewhere}"
        )
    if own is not None and by_name[wanted].name != own:
        raise UsageError(f"recipe {recipe} is of {own}, not of {wanted}: leave --method away")
    return by_name[wanted]


def _stage_of(method: str) -> str:
    return next(s for s, methods in METHODS_BY_STAGE.items() if METHODS[method] in methods.values())


def require_labels(recipe: Recipe, data: TrainingData) -> None:
    """Refuses a set with unlabelled videos where the method learns from labels.

    Raises:
        MissingInput: the sentence says how labels are given.
    """
    lacking = int((data.videos.label < 0).sum())
    if METHODS[recipe.method].supervised and lacking:
        raise MissingInput(
            f"{recipe.method} learns from labels, and {lacking} of the {len(data.videos)} training "
            f"videos of {data.pack.label} {agree(lacking, 'has', 'have')} none: give each class a "
            "folder of its own, or name a table of labels with: "
            "vidssl pack VIDEOS --labels FILE.csv"
        )


def like_encoder(recipe: Recipe, spec: EncoderSpec) -> Recipe:
    """Takes the network, and the clip where the user did not set it, from an encoder to start from.

    Raises:
        UsageError: the user wants another backbone, or the method cannot do with its blocks.
    """
    if "backbone" in recipe.explicit and recipe.network.backbone != spec.backbone:
        raise UsageError(
            f"the {spec.view} encoder to start from is a {spec.backbone}: leave "
            f"--backbone {recipe.network.backbone} away"
        )
    clip = {
        "frames": spec.frames,
        "stride": spec.stride,
        "size": spec.size,
        "blocks": spec.blocks,
    }
    kept = {name: value for name, value in clip.items() if name not in recipe.explicit}
    whole = ClipSpec(**{**vars(recipe.clip), **kept})
    METHODS[recipe.method].check_blocks(recipe.config, whole.blocks)
    return replace(recipe, network=NetworkSpec(spec.backbone, spec.project or 0), clip=whole)


def check_context(method: str, spec: EncoderSpec) -> None:
    """Raises a :class:`UsageError` if a method needs another top on the backbone than there is."""
    wanted = METHODS[method].context
    if wanted != spec.context:
        top = "a projection head" if wanted is None else "a context over blocks"
        raise UsageError(f"{method} needs {top}, and the {spec.view} encoder it is given has none")


def with_clip_spec(encoder: Encoder, clip: ClipSpec) -> Encoder:
    """Notes in an encoder to start from what clips it is trained on from now; gives it back."""
    encoder.spec = replace(encoder.spec, **vars(clip))
    return encoder


def new_encoder(
    recipe: Recipe, stream: str, presentation: str | None = None, context: str | None = None
) -> Encoder:
    """Makes the encoder that a recipe describes for a stream.

    Args:
        presentation: how the stream is shown to it; None: as the recipe's augmentation says.
        context: above its backbone; None: what the method needs.
    """
    context = context or METHODS[recipe.method].context
    if presentation is None:
        presentation = get_view(stream).shown_as(recipe.augment.presentation)
    return Encoder(
        EncoderSpec(
            view=stream,
            backbone=recipe.network.backbone,
            channels=get_view(stream).input_channels(presentation),
            frames=recipe.clip.frames,
            stride=recipe.clip.stride,
            size=recipe.clip.size,
            project=None if context else recipe.network.project or None,
            blocks=recipe.clip.blocks,
            context=context,
            presentation=presentation,
        )
    )


def load_extra_state(method: Method, start: Artifact) -> Method:
    """Lets a method take up what a run before it left beside its encoder, such as prototypes."""
    method.load_extra_state(checkpoint_tensors(start))
    return method


def default_recipe(device: str | None) -> str:
    """Returns `paper` with CUDA and `cpu` without."""
    return "paper" if choose_device(device) == "cuda" else "cpu"


def fit_to_data(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    """Makes defaults fit a small set; what the user set is left alone.

    A batch larger than the set cannot be filled, nor one that processes and micro-batches cannot
    share, and a queue longer than an epoch would hold the
    same video twice, as its own negative.

    Returns:
        The recipe, and a sentence for each change.

    Raises:
        VidsslError: there is one video, or the user's queue is shorter than a batch.
    """
    if videos < 2:
        raise VidsslError(f"contrastive training needs at least 2 videos, and there is {videos}")
    notes = []
    batch = recipe.train.batch_size
    share = distributed.launched() * recipe.train.accumulate
    if batch > videos >= share and "batch_size" not in recipe.explicit:
        batch = videos // share * share
        why = f"there {agree(videos, 'is', 'are')} {counted(videos, 'training video')}"
        divided = f", and batches are divided by {share}" if batch < videos else ""
        notes.append(f"batch size {recipe.train.batch_size} → {batch}: {why}{divided}")
        recipe = recipe.override("train", batch_size=batch)
    queue = getattr(recipe.config, "queue", None)
    most = max(videos // batch, 1) * batch
    if queue is not None and queue > most and "queue" not in recipe.explicit:
        notes.append(f"queue {queue} → {most}: a longer one would hold videos twice")
        recipe, more = _with_queue(recipe, most)
        notes += more
    elif queue and queue < batch <= videos and METHODS[recipe.method].queues_batches:
        if "queue" in recipe.explicit:
            raise UsageError(
                f"a queue of {queue} has no room for a batch of {batch}: give --set queue={batch} "
                f"or more, or --batch-size {queue} or less"
            )
        notes.append(f"queue {queue} → {batch}: it has to hold a batch")
        recipe = recipe.override("config", queue=batch)
    return recipe, notes


def _with_queue(recipe: Recipe, queue: int) -> tuple[Recipe, list[str]]:
    """Returns the recipe with a shorter queue, of which at most half may be positives.

    Raises:
        UsageError: the user asked for as many positives as there would be keys.
    """
    k = getattr(recipe.config, "k", 0)
    if k < queue:
        return recipe.override("config", queue=queue), []
    if "k" in recipe.explicit:
        raise UsageError(
            f"the queue has room for {queue} keys of so few videos, and k {k} would take all of "
            f"them for positives: give --k {max(queue // 2, 1)} or less"
        )
    fewer = queue // 2
    note = f"k {k} → {fewer}: of {queue} keys all would be positives, and nothing negative"
    return recipe.override("config", queue=queue, k=fewer), [note]


def without_steps(recipe: Recipe, videos: int) -> list[str]:
    """Returns a sentence if all steps would go into filling the queue, and none into training."""
    batch, queue = recipe.train.batch_size, getattr(recipe.config, "queue", 0)
    steps = videos // batch * recipe.train.epochs
    waits = getattr(recipe.config, "wait_for_full_queue", False)
    if not waits or steps * batch > queue:
        return []
    return [
        f"nothing will be learned: {counted(steps, 'step')} only {agree(steps, 'fills', 'fill')} "
        f"the queue of {queue} keys, before which no positives are looked for; train more epochs"
    ]


@dataclass(frozen=True)
class TrainingPlan:
    """All that is decided before the first step.

    Attributes:
        stage: "pretrain", "cotrain" or "finetune".
        make_objective: builds the method with its networks; called only when there is work.
        streams: all that are trained at once, where it is more than the one of the options.
        more: what else identifies the run.
    """

    stage: str
    name: str
    options: TrainingOptions
    recipe: Recipe
    data: TrainingData
    parents: Mapping[str, Artifact]
    make_method: Callable[[], Method]
    notes: list[str]
    streams: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Returns the recipe part of the run's identity."""
        together: dict[str, Any] = {"streams": list(self.streams)} if self.streams else {}
        if self.options.decode != "host":  # it changes levels
            together["decode"] = self.options.decode
        return (
            self.recipe.as_dict()
            | together
            | {
                "stage": self.stage,
                "stream": self.options.stream,
                "split": self.data.split,
                "seed": self.options.seed,
                "precision": choose_precision(self.options),
            }
            | self.more
        )

    @property
    def half_precision(self) -> bool:
        return choose_precision(self.options) == "bf16"

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data, for --dry-run."""
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
    if options.plan:
        expected = _forecast(plan, progress)
        whole = plan.as_dict() | {"forecast": expected.as_dict()}
        return StageResult(artifact=None, notes=plan.notes, plan=whole, forecast=expected)
    if distributed.rank() != 0:
        return _follow(workspace, plan)
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
    distributed.from_rank_zero(artifact.label)
    collapsed = [artifact.summary[COLLAPSED]] if COLLAPSED in artifact.summary else []
    return StageResult(artifact, reused=run.finished is not None, notes=plan.notes + collapsed)


def _follow(workspace: Workspace, plan: TrainingPlan) -> StageResult:
    """Trains as one of the ranks that publish nothing; waits for what rank 0 publishes."""
    folder = distributed.from_rank_zero(None)
    if folder is not None:
        _train(Path(folder), plan, SILENT, lambda method, epoch: None)
    label = distributed.from_rank_zero(None)
    return StageResult(artifact=workspace.resolve("checkpoint", label), reused=folder is None)


def _train_and_publish(run: Run, plan: TrainingPlan, progress: Progress) -> Artifact:
    def snapshot(method: Method, epoch: int) -> None:
        if epoch in plan.options.snapshot_epochs and epoch < plan.recipe.train.epochs:
            files, digest = _save_weights(method, run.folder), _digest(method)
            # A run killed between a snapshot and the next save comes by here twice.
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
    if said := collapse(last, plan.recipe.train, method):
        summary[COLLAPSED] = said
    return run.publish(digest, summary | figures)


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
    method, loader, runtime = _make(plan, plan.data.videos, progress, keep_decoded=True)
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
    )
    return method, last


def _make(
    plan: TrainingPlan, videos: TrainingVideos, progress: Progress, keep_decoded: bool = False
) -> tuple[Method, ClipLoader, RuntimeConfig]:
    """Builds what the engine takes, all of it as the seed says.

    Args:
        keep_decoded: on a CPU, decode the frames of a small set once.
    """
    options, recipe = plan.options, plan.recipe
    device = distributed.local_device(choose_device(options.device))
    torch.manual_seed(options.seed)
    method = plan.make_method()
    presentations = {
        part.spec.view: part.spec.presentation
        for part in method.modules()
        if isinstance(part, Encoder)
    }
    for sentence in _not_as_the_policy_says(recipe, presentations):
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
    )
    runtime = RuntimeConfig(
        device,
        plan.half_precision,
        compile=options.compile,
        recompute=options.recompute,
        save_every=options.save_every,
    )
    return method, loader, runtime


def _forecast(plan: TrainingPlan, progress: Progress) -> Forecast:
    """Tells what the run would take, by trying a few of its steps."""
    frames = CountedFrames(plan.data.videos.reader)
    method, loader, runtime = _make(plan, replace(plan.data.videos, reader=frames), progress)
    return try_out(method, loader, plan.recipe.train, runtime, plan.options.seed, frames, progress)


def _not_as_the_policy_says(recipe: Recipe, presentations: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each view that its encoder sees otherwise than the recipe's policy."""
    policy, alone = recipe.augment, ""
    if policy.motion_as_picture:
        alone = ", and its colour is left alone"
    wanted = {view: get_view(view).shown_as(policy.presentation) for view in presentations}
    return [
        f"the policy {policy.policy} shows {view} as {wanted[view]}, but its encoder began with "
        f"{shown}: it goes on seeing that{alone}"
        for view, shown in presentations.items()
        if shown != wanted[view]
    ]


def for_stream(options: TrainingOptions, stream: str) -> TrainingOptions:
    """Returns the same options for another stream."""
    return replace(options, stream=stream)
