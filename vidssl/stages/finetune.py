"""`vidssl finetune`: encoder and classifier trained on labels end to end, then tested.

The papers' headline figures; with `freeze`, where the encoder stays as it is, their linear probe.
The training is one run of the engine like any other and leaves a checkpoint; the test leaves the
figures (:mod:`vidssl.evaluation.finetuned_accuracy`). Another way of testing trains nothing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vidssl.base import distributed
from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.clips.temporal_sampling import published_hop
from vidssl.evaluation.classification import ClassificationResult
from vidssl.evaluation.evaluated_encoders import (
    DEFAULT_VIEW,
    EncoderOnPack,
    check_encoder_options,
    find_subjects,
)
from vidssl.evaluation.feature_cache import name_of
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.finetuned_accuracy import (
    FinetunedNetwork,
    average,
    classify,
    classify_parents,
    classify_recipe,
)
from vidssl.evaluation.labelled_split import LabelledSplit, check_trainable, find_labels
from vidssl.evaluation.view_average import joined_name
from vidssl.methods import METHODS_BY_STAGE
from vidssl.recipes.recipe import EvaluationSpec
from vidssl.training.finetuning import Start, plan_finetuning
from vidssl.training.options import (
    Choice,
    ResolvedOptions,
    TrainingOptions,
    default_recipe,
    resolve_view,
)
from vidssl.training.training_run import TrainingPlan, run_training
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_spec
from vidssl.workspace.find_inputs import find_pack
from vidssl.workspace.run import Run
from vidssl.workspace.run_diff import nothing_to_resume
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

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
    choice = choose_method(options)
    known = {v: resolve_for(options, choice, v) for v in options.streams or (DEFAULT_VIEW,)}
    starts = find_starts(workspace, options)
    checkpoints = [start.checkpoint for start in starts if start.checkpoint is not None]
    labelled = find_labels(workspace, starts[0].pack, checkpoints, options.split, options.seed)
    check_trainable(labelled, "classifier")
    views = [start.view for start in starts]  # of named checkpoints, perhaps others than `known`
    resolved = [known.get(view) or resolve_for(options, choice, view) for view in views]
    plans = [
        plan_finetuning(start, labelled, each) for start, each in zip(starts, resolved, strict=True)
    ]
    if len(plans) > 1 and not options.new:
        plans = [_with_finished_name(workspace, training) for training in plans]
    if options.dry_run:
        return FinetuneResult([], _dry_run(plans, starts, labelled, options))
    if options.resume and not any(_begun(workspace, each, labelled) for each in plans):
        raise VidsslError(nothing_to_resume([_training_run(workspace, each) for each in plans]))
    shown = " + ".join(dict.fromkeys(start.label for start in starts))
    progress.say(
        f"finetune: {shown} on {starts[0].pack.label}, {labelled.selection.note}, "
        f"recipe {plans[0].recipe.name}"
    )
    trainings = [run_training(workspace, each, progress) for each in plans]
    if distributed.rank() != 0:
        return FinetuneResult(trainings, None)
    networks = [_network(p, t.artifact) for p, t in zip(plans, trainings, strict=True)]
    test = _test(workspace, networks, starts, labelled, options, progress)
    return FinetuneResult(trainings, test)


# ── options ──────────────────────────────────────────────────────────────────────────────────


def choose_method(options: FinetuneOptions) -> Choice:
    """Chooses device, recipe and method, and checks the options that no other stage has.

    Raises:
        UsageError: the first that makes no sense.
    """
    check_encoder_options(options.checkpoints, options.streams, None, options.name)
    if options.scratch and options.checkpoints:
        raise UsageError("--scratch begins with fresh weights: leave --checkpoint away")
    if options.crops is not None:
        WindowProtocol(crops=options.crops)
    device = choose_device(options.device)
    method_class = METHODS_BY_STAGE[STAGE]["linear" if options.freeze else "finetune"]
    return Choice(device, options.recipe or default_recipe(device), method_class)


def resolve_for(options: FinetuneOptions, choice: Choice, view: str) -> ResolvedOptions:
    """Returns what the options mean for one view.

    Raises:
        UsageError: a recipe or a setting that does not exist or does not fit.
    """
    resolved = resolve_view(options, choice, view)
    if "classes" in resolved.recipe.explicit:
        raise UsageError("the classes are those of the labels: leave --set classes away")
    given = {"crops": options.crops, "hop": options.hop}
    told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    recipe = resolved.recipe.override("evaluation", **told)
    # `run` asks for what --resume demands, of all views together.
    return replace(resolved, recipe=recipe, resume=False)


# ── what training starts from ────────────────────────────────────────────────────────────────


def find_starts(workspace: Workspace, options: FinetuneOptions) -> list[Start]:
    """Finds what each view starts from; all are trained on the first one's pack.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if options.scratch:
        views = list(options.streams or (DEFAULT_VIEW,))
        pack = find_pack(workspace, options.pack, views)
        found: list[tuple[str, Artifact | None, str]] = [
            (view, None, f"{view}-scratch") for view in views
        ]
    else:
        subjects = find_subjects(workspace, options.checkpoints, options.streams, options.pack)
        pack = subjects[0].pack
        found = [(s.view, s.checkpoint, name_of(s)) for s in subjects]
    return [
        Start(view, pack, checkpoint, *_names(name, checkpoint, options, len(found) == 1))
        for view, checkpoint, name in found
    ]


def _names(
    name: str, checkpoint: Artifact | None, options: FinetuneOptions, alone: bool
) -> tuple[str, str]:
    """Returns the names of the figures and of the trained network.

    Args:
        name: of what training starts from.
        alone: there is no other view, so that the name the user gave is meant for this one.
    """
    if alone and options.name is not None:
        name = options.name
    elif options.freeze:
        name = f"{name}-linear"
    # A frozen encoder is not finetuned, and a fresh one had no name before.
    return name, name if options.freeze or checkpoint is None else f"{name}-finetuned"


# ── training ─────────────────────────────────────────────────────────────────────────────────


def _with_finished_name(workspace: Workspace, training: TrainingPlan) -> TrainingPlan:
    """Returns the plan under the name that its training was finished under, if it was."""
    identity = _training_run(workspace, training).identity
    found = workspace.newest("checkpoint", lambda a: a.run == identity)
    return training if found is None else replace(training, name=found.name)


# ── testing ──────────────────────────────────────────────────────────────────────────────────


def evaluation_for(training: TrainingPlan) -> EvaluationSpec:
    """Returns how the network of a plan is tested: as the recipe says, unless the user does."""
    return training.recipe.evaluation


def protocol_for(training: TrainingPlan, presentation: str) -> WindowProtocol:
    """Returns the windows and crops of the test; frames are resized and mirrored as in training.

    Args:
        presentation: the form in which the view is shown to the encoder.
    """
    evaluation, augment = evaluation_for(training), training.recipe.augment
    view = get_view(training.options.view)
    taken_for_film = augment.motion_as_picture and view.is_picture(presentation)
    return WindowProtocol(
        hop=evaluation.hop,
        crops=evaluation.crops,
        resize=augment.resize,
        turned=view.colour or not taken_for_film,
    )


def _network(training: TrainingPlan, checkpoint: Artifact | None) -> FinetunedNetwork:
    assert checkpoint is not None
    view = training.options.view
    presentation = checkpoint_spec(checkpoint, view).presentation
    subject = EncoderOnPack(checkpoint, view, training.data.pack)
    weight = evaluation_for(training).weight
    return FinetunedNetwork(subject, protocol_for(training, presentation), weight)


def _test(
    workspace: Workspace,
    networks: Sequence[FinetunedNetwork],
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
    name = _name(starts, options)
    return average(workspace, networks, singles, labelled, name, new=options.new)


def _name(starts: Sequence[Start], options: FinetuneOptions) -> str:
    """Returns the name of the figures: of one view, or of the average of several."""
    return options.name or joined_name(start.name for start in starts)


def _begun(workspace: Workspace, training: TrainingPlan, labelled: LabelledSplit) -> bool:
    """Whether a plan's training, or the test after it, was begun and not finished."""
    run = _training_run(workspace, training)
    if run.finished is None:
        return run.started
    network = _network(training, run.finished)
    recipe, parents = classify_recipe(network, labelled), classify_parents(network, labelled)
    name = training.name.removesuffix("-finetuned")
    return workspace.open_run("finetune", name, recipe, parents).started


def _training_run(workspace: Workspace, training: TrainingPlan) -> Run:
    return workspace.open_run("checkpoint", training.name, training.identity(), training.parents)


def _dry_run(
    plans: Sequence[TrainingPlan],
    starts: Sequence[Start],
    labelled: LabelledSplit,
    options: FinetuneOptions,
) -> ClassificationResult:
    """Returns what would be done: the training of every view, and how its network is tested."""
    whole: dict[str, Any] = {"makes": f"finetune/{_name(starts, options)}"}
    for training in plans:
        clip, evaluation = training.recipe.clip, asdict(evaluation_for(training))
        evaluation["hop"] = evaluation["hop"] or published_hop(
            clip.frames * clip.blocks, clip.stride
        )
        each = training.as_dict() | {
            "test_videos": len(labelled.test),
            "evaluation": evaluation,
        }
        whole |= {training.options.view: each} if len(plans) > 1 else {"training": each}
    notes = [*labelled.notes, *(note for training in plans for note in training.notes)]
    return ClassificationResult(StageResult(None, notes=notes, plan=whole), None)
