"""`vidssl finetune`: encoder and classifier trained on labels end to end, then tested.

The papers' headline figures; with `freeze`, where the encoder stays as it is, their linear probe.
The training is one run of the engine like any other and leaves a checkpoint; the test leaves the
figures (:mod:`vidssl.evaluation.finetuned_accuracy`). Another way of testing trains nothing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch.nn import BatchNorm1d

from vidssl.base import distributed
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.temporal_sampling import published_hop
from vidssl.evaluation.classification import ClassificationResult
from vidssl.evaluation.feature_cache import name_of
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.finetuned_accuracy import (
    Finetuned,
    average,
    classify,
    classify_parents,
    classify_recipe,
)
from vidssl.evaluation.labelled import (
    LabelledSplit,
    check_trainable,
    find_labels,
)
from vidssl.evaluation.subjects import (
    DEFAULT_STREAM,
    EncoderOnPack,
    check_words,
    find_subjects,
)
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import (
    EvaluationSpec,
    Recipe,
    load_recipe,
)
from vidssl.training.data import TrainingData
from vidssl.training.encoders import like_encoder, new_encoder, with_clip_spec
from vidssl.training.fit_to_data import fit_to_data
from vidssl.training.options import TrainingOptions, default_recipe
from vidssl.training.training_run import TrainingPlan, carry_out
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.find import find_pack
from vidssl.workspace.results import StageResult
from vidssl.workspace.run_diff import nothing_to_resume
from vidssl.workspace.workspace import Run, Workspace

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneOptions(TrainingOptions):
    """Options of `vidssl finetune`, beside those of every training.

    Attributes:
        checkpoints: one, or one of each stream; none: the newest of each of `streams`.
        streams: each is trained by itself, and their probabilities are averaged; none: the
            checkpoints' own, or rgb.
        scratch: begin with fresh weights, of the recipe's network.
        freeze: train only the classifier, a linear one.
        crops, hop: of the test (:class:`vidssl.recipes.recipe.EvaluationSpec`); None: the recipe's.
        name: of the figures; that of the finetuned network is it with "-finetuned".
    """

    checkpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    scratch: bool = False
    freeze: bool = False
    crops: str | None = None
    hop: int | None = None

    @property
    def method_name(self) -> str:
        """What is trained, of :data:`vidssl.methods.METHODS_BY_STAGE`."""
        return "linear" if self.freeze else "finetune"


@dataclass(frozen=True)
class Start:
    """What one stream's training begins with.

    Attributes:
        checkpoint: None: fresh weights.
        name: of its figures.
        trained_name: of the checkpoint that comes of it.
    """

    stream: str
    pack: Artifact
    checkpoint: Artifact | None
    name: str
    trained_name: str

    @property
    def label(self) -> str:
        """What the user is told that it is."""
        return (
            f"a fresh {self.stream} network" if self.checkpoint is None else self.checkpoint.label
        )


@dataclass(frozen=True)
class FinetuneResult:
    """The networks that were trained, one for each stream, and what they reach on the test part.

    Attributes:
        test: None where this process only helped to train.
    """

    trainings: list[StageResult]
    test: ClassificationResult | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        trained = {"trainings": [training.as_dict() for training in self.trainings]}
        return (self.test.as_dict() if self.test is not None else {}) | trained


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(
    workspace: Workspace, options: FinetuneOptions, progress: Progress = SILENT
) -> FinetuneResult:
    """Finetunes and tests one stream, or several whose probabilities are averaged.

    What is finished already, of training or testing, is not done again.

    Raises:
        VidsslError: no checkpoint, no labels, no such split, or `--resume` without anything to
            go on with.
        Interrupted: a signal came; the same command goes on.
    """
    check(options)
    starts = find_starts(workspace, options)
    checkpoints = [start.checkpoint for start in starts if start.checkpoint is not None]
    labelled = find_labels(workspace, starts[0].pack, checkpoints, options.split, options.seed)
    check_trainable(labelled, "classifier")
    plans = [plan(workspace, start, labelled, options) for start in starts]
    if options.dry_run:
        return FinetuneResult([], _dry_run(plans, starts, labelled, options))
    if options.resume and not any(_begun(workspace, p, labelled) for p in plans):
        raise VidsslError(nothing_to_resume([_training(workspace, p) for p in plans]))
    shown = " + ".join(dict.fromkeys(start.label for start in starts))
    progress.say(
        f"finetune: {shown} on {starts[0].pack.label}, {labelled.selection.note}, "
        f"recipe {plans[0].recipe.name}"
    )
    trainings = [carry_out(workspace, p, progress) for p in plans]
    if distributed.rank() != 0:
        return FinetuneResult(trainings, None)
    networks = [_network(p, t.artifact) for p, t in zip(plans, trainings, strict=True)]
    test = _test(workspace, networks, starts, labelled, options, progress)
    return FinetuneResult(trainings, test)


def check(options: FinetuneOptions) -> None:
    """Checks what options say by themselves, before anything is looked up.

    Raises:
        UsageError: the first that makes no sense.
    """
    check_words(options.checkpoints, options.streams, options.device, options.name)
    if options.scratch and options.checkpoints:
        raise UsageError("--scratch begins with fresh weights: leave --checkpoint away")
    if options.crops is not None:
        WindowProtocol(crops=options.crops)
    for stream in options.streams or (DEFAULT_STREAM,):
        recipe_for(stream, options)


def find_starts(workspace: Workspace, options: FinetuneOptions) -> list[Start]:
    """Finds what each stream begins with; all are trained on the first one's pack.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if options.scratch:
        streams = options.streams or (DEFAULT_STREAM,)
        views = [get_view(stream).name for stream in streams]
        pack = find_pack(workspace, options.pack, views)
        found = [(stream, None, f"{stream}-scratch") for stream in streams]
    else:
        subjects = find_subjects(workspace, options.checkpoints, options.streams, options.pack)
        pack = subjects[0].pack
        found = [(s.stream, s.checkpoint, name_of(s)) for s in subjects]
    return [
        Start(stream, pack, checkpoint, *_names(name, checkpoint, options, len(found) == 1))
        for stream, checkpoint, name in found
    ]


def _names(
    name: str, checkpoint: Artifact | None, options: FinetuneOptions, alone: bool
) -> tuple[str, str]:
    """Returns the names of the figures and of the trained network.

    Args:
        name: of what is begun with.
        alone: there is no other stream, so that the name the user gave is meant for this.
    """
    if alone and options.name is not None:
        name = options.name
    elif options.freeze:
        name = f"{name}-linear"
    # A frozen encoder is not finetuned, and a fresh one had no name before.
    return name, name if options.freeze or checkpoint is None else f"{name}-finetuned"


def plan(
    workspace: Workspace, start: Start, labelled: LabelledSplit, options: FinetuneOptions
) -> TrainingPlan:
    """Resolves one stream's training without doing any work."""
    own = replace(options, stream=start.stream, resume=False)
    recipe, notes = fit_to_data(choose_recipe(start, labelled, own), len(labelled.train))
    parents = {"pack": start.pack, "annotations": labelled.artifact}
    if start.checkpoint is not None:
        parents["init"] = start.checkpoint
    made = TrainingPlan(
        stage=STAGE,
        name=start.trained_name,
        options=own,
        recipe=recipe,
        data=training_data(start.pack, labelled),
        parents=parents,
        make_method=lambda: make_method(recipe, start, options.seed),
        notes=notes,
        more={"classes": list(labelled.classes), "split_seed": labelled.split_seed},
    )
    several = max(len(options.streams), len(options.checkpoints)) > 1
    return _as_it_was_called(workspace, made) if several and not options.new else made


def _as_it_was_called(workspace: Workspace, made: TrainingPlan) -> TrainingPlan:
    """Returns a plan the name under which its training is finished already, if it is."""
    identity = _training(workspace, made).identity
    found = workspace.newest("checkpoint", lambda a: a.run == identity)
    return made if found is None else replace(made, name=found.name)


def recipe_for(stream: str, options: FinetuneOptions) -> Recipe:
    """Returns a recipe's numbers for finetuning a stream, with the user's settings.

    Raises:
        UsageError: a recipe or a setting that does not exist or does not fit.
    """
    name = options.recipe or default_recipe(options.device)
    recipe = load_recipe(name, options.method_name, stream, options.settings)
    if "classes" in recipe.explicit:
        raise UsageError("the classes are those of the labels: leave --set classes away")
    return recipe


def choose_recipe(start: Start, labelled: LabelledSplit, options: FinetuneOptions) -> Recipe:
    """Returns the recipe's numbers; network, and clip unless told, are the encoder's.

    Raises:
        UsageError: a setting that does not fit the encoder.
    """
    recipe = recipe_for(options.stream, options)
    if start.checkpoint is not None:
        spec = checkpoint_spec(start.checkpoint, start.stream)
        explicit = recipe.explicit
        recipe = like_encoder(replace(recipe, explicit=explicit | recipe.own_clip), spec)
        recipe = replace(recipe, explicit=explicit)
    recipe = recipe.override("network", project=0)  # a classifier has no use for it
    return recipe.override("config", classes=len(labelled.classes))


def training_data(pack: Artifact, labelled: LabelledSplit) -> TrainingData:
    """Returns the labelled videos of the train part."""
    train = labelled.train
    videos = TrainingVideos(
        reader=labelled.reader,
        index=train,
        source=np.asarray(labelled.annotations.groups)[train],
        label=labelled.labels[train],
    )
    selection = labelled.selection
    return TrainingData(
        pack, labelled.artifact, selection.name, list(labelled.classes), videos, selection.note
    )


def make_method(recipe: Recipe, start: Start, seed: int) -> Method:
    """Returns the classifier above the start's encoder, or above a fresh one."""
    clip = recipe.clip
    if start.checkpoint is None:
        encoder = new_encoder(recipe, start.stream, context="gru" if clip.blocks > 1 else None)
    else:
        encoder = with_clip_spec(checkpoint_encoder(start.checkpoint, start.stream), clip)
    method = METHODS[recipe.method].build(recipe.config, {start.stream: encoder}, seed)
    clips = recipe.train.batch_size // (recipe.train.accumulate * distributed.world_size())
    if clips < 2 and any(isinstance(part, BatchNorm1d) for part in method.modules()):
        raise UsageError(
            "this classifier normalises over the batch, which must hold two videos or more: give "
            "a larger --batch-size"
        )
    return method


# ── testing ──────────────────────────────────────────────────────────────────────────────────


def evaluation_for(made: TrainingPlan) -> EvaluationSpec:
    """Returns how a plan's network is tested: as the recipe says, unless the user does."""
    options = made.options
    assert isinstance(options, FinetuneOptions)
    given = {"crops": options.crops, "hop": options.hop}
    told = {name: value for name, value in given.items() if value is not None}
    return replace(made.recipe.evaluation, **told)


def protocol_for(made: TrainingPlan, presentation: str) -> WindowProtocol:
    """Returns the test's protocol, frames resized and mirrored as in the plan's training."""
    evaluation, augment = evaluation_for(made), made.recipe.augment
    view = get_view(made.options.stream)
    taken_for_film = augment.motion_as_picture and view.is_picture(presentation)
    return WindowProtocol(
        hop=evaluation.hop,
        crops=evaluation.crops,
        resize=augment.resize,
        turned=view.colour or not taken_for_film,
    )


def _network(made: TrainingPlan, checkpoint: Artifact | None) -> Finetuned:
    assert checkpoint is not None
    stream = made.options.stream
    presentation = checkpoint_spec(checkpoint, stream).presentation
    subject = EncoderOnPack(checkpoint, stream, made.data.pack)
    return Finetuned(subject, protocol_for(made, presentation), evaluation_for(made).weight)


def _test(
    workspace: Workspace,
    networks: Sequence[Finetuned],
    starts: Sequence[Start],
    labelled: LabelledSplit,
    options: FinetuneOptions,
    progress: Progress,
) -> ClassificationResult:
    singles = [
        classify(
            workspace,
            network,
            labelled,
            start.name,
            anywhere=len(networks) > 1,
            new=options.new,
            device=options.device,
            progress=progress,
        )
        for network, start in zip(networks, starts, strict=True)
    ]
    if len(singles) == 1:
        return singles[0]
    name = _joined_name(starts, options)
    return average(workspace, networks, singles, labelled, name, new=options.new)


def _joined_name(starts: Sequence[Start], options: FinetuneOptions) -> str:
    if len(starts) == 1:
        return starts[0].name
    return options.name or "_".join(dict.fromkeys(start.name for start in starts))


def _begun(workspace: Workspace, made: TrainingPlan, labelled: LabelledSplit) -> bool:
    """Whether a plan's training, or the test after it, was begun and not finished."""
    training = _training(workspace, made)
    if training.finished is None:
        return training.started
    network = _network(made, training.finished)
    recipe, parents = classify_recipe(network, labelled), classify_parents(network, labelled)
    name = made.name.removesuffix("-finetuned")
    return workspace.open_run("finetune", name, recipe, parents).started


def _training(workspace: Workspace, made: TrainingPlan) -> Run:
    return workspace.open_run("checkpoint", made.name, made.identity(), made.parents)


def _dry_run(
    plans: Sequence[TrainingPlan],
    starts: Sequence[Start],
    labelled: LabelledSplit,
    options: FinetuneOptions,
) -> ClassificationResult:
    """Returns what would be done: every stream's training and how it is tested."""
    whole: dict[str, Any] = {"makes": f"finetune/{_joined_name(starts, options)}"}
    for made in plans:
        clip, evaluation = made.recipe.clip, asdict(evaluation_for(made))
        evaluation["hop"] = evaluation["hop"] or published_hop(
            clip.frames * clip.blocks, clip.stride
        )
        each = made.as_dict() | {"test_videos": len(labelled.test), "evaluation": evaluation}
        whole |= {made.options.stream: each} if len(plans) > 1 else {"training": each}
    notes = [*labelled.notes, *(note for made in plans for note in made.notes)]
    return ClassificationResult(StageResult(None, notes=notes, plan=whole), None)
