"""`vidssl cotrain`: a student of one view learns from a frozen partner of another view.

The partner says which videos are alike. Which view learns is only a matter of who the student is;
several cycles are several runs in a row, each with the newest encoders of both views (Han et al.
2020, §3.2; Toering et al. 2022). Methods that train all views at once have no student and are
planned by :mod:`vidssl.training.joint_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import Method
from vidssl.training.data import TrainingData, training_data
from vidssl.training.encoders import check_context, like_encoder, load_extra_state, with_clip_spec
from vidssl.training.fit_to_data import fit_options, without_steps
from vidssl.training.joint_training import check_views, plan_joint_training
from vidssl.training.mined_neighbours import give_neighbours
from vidssl.training.options import Choice, ResolvedOptions, TrainingOptions, choose, resolve_view
from vidssl.training.training_run import TrainingPlan, run_training
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.find_inputs import find_checkpoint, find_pack, pack_of
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class CotrainOptions(TrainingOptions):
    """Options of `vidssl cotrain`.

    Attributes:
        student, partner: checkpoints; None: the newest of the stream, and of the other one.
        cycles: 0 trains the one view once; n trains both views n times in turn.
        streams: the two views of student and partner.
        views: those that a method trains at once; empty: both of `streams`.
        init_from: for methods that train all views at once: checkpoints whose encoders are the
            start, or "newest"; none: from scratch.
    """

    student: str | None = None
    partner: str | None = None
    cycles: int = 0
    streams: tuple[str, str] = ("rgb", "flow")
    views: tuple[str, ...] = ()
    init_from: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResolvedCotrain(ResolvedOptions):
    """What the options of a co-training mean.

    Attributes:
        view: of the student; the first one where all are trained at once.
        views: of student and partner, or all that are trained at once.
        student, partner, init_from: as they were given.
    """

    views: tuple[str, ...]
    student: str | None
    partner: str | None
    init_from: tuple[str, ...]

    @property
    def partner_view(self) -> str:
        """The view that is not the student's."""
        return next(view for view in self.views if view != self.view)


def run(workspace: Workspace, options: CotrainOptions, progress: Progress = SILENT) -> StageResult:
    """Co-trains `options.stream` once, or several views at once; returns the checkpoint."""
    choice = choose_method(options)
    resolved = resolve_for(options, choice, options.stream)
    if choice.method_class.joint:
        return run_training(workspace, plan_together(workspace, resolved, progress), progress)
    pair = find_pair(workspace, resolved)
    if not resolved.new:
        pair = _as_typed_before(workspace, resolved, pair)
    return run_training(workspace, plan_cotraining(workspace, resolved, *pair, progress), progress)


def run_cycles(
    workspace: Workspace, options: CotrainOptions, progress: Progress = SILENT
) -> Iterator[StageResult]:
    """Co-trains both views in turn, `options.stream` first, starting with a pretrained pair.

    Yields the result of each run when it is done; a run that was finished before is not repeated.
    """
    if options.student or options.partner:
        raise UsageError("--cycles chooses students and partners itself: leave --student and "
                         "--partner away")  # fmt: skip
    choice = choose_method(options)
    if choice.method_class.joint:
        raise UsageError(f"{choice.method_class.name} trains all streams at once: "
                         "leave --cycles away")  # fmt: skip
    first = resolve_for(options, choice, options.stream)
    views = (first.view, first.partner_view)
    resolved = {view: resolve_for(options, choice, view) for view in views}
    newest = newest_starts(workspace, first, views)
    turns = student_and_partner(options.cycles, views)
    for view, other in turns:
        pair = (newest[view], newest[other])
        training = plan_cotraining(workspace, resolved[view], *pair, progress)
        result = run_training(workspace, training, progress)
        if result.artifact is None:  # after a dry run, the next turn's student is not there yet
            order = ", ".join(student for student, _ in turns)
            note = f"{len(turns)} turns, each from what came before: {order}; this is the first"
            yield replace(result, notes=[*result.notes, note])
            return
        yield result
        newest[view] = result.artifact


def student_and_partner(cycles: int, views: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the views of student and partner for every run of `cycles` cycles over two views."""
    first, second = views
    return [(first, second), (second, first)] * cycles


# ── options ──────────────────────────────────────────────────────────────────────────────────


def choose_method(options: CotrainOptions) -> Choice:
    """Chooses the method, and checks the options that only some methods take.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(options.stream)
    choice = choose(options, "cotrain")
    if choice.method_class.joint:
        _check_joint(options, choice.method_class)
    else:
        _check_pair(options, choice.method_class)
    return choice


def _check_joint(options: CotrainOptions, method_class: type[Method]) -> None:
    if options.student or options.partner:
        raise UsageError(
            f"{method_class.name} trains all streams at once, without student and partner: "
            "give --init-from to start from checkpoints"
        )
    check_views(method_class, options.views or options.streams)


def _check_pair(options: CotrainOptions, method_class: type[Method]) -> None:
    if options.init_from:
        raise UsageError(f"{method_class.name} starts from its student: use --student")
    if options.views:
        raise UsageError(
            f"{method_class.name} has one student: --stream says which, and --views is for methods "
            "that train several views at once, such as cocon"
        )
    if options.stream not in options.streams:
        raise UsageError(
            f"cotrain has streams {' and '.join(options.streams)}, not {options.stream}"
        )


def resolve_for(options: CotrainOptions, choice: Choice, student: str) -> ResolvedCotrain:
    """Checks all other options, and returns what they mean.

    Args:
        student: its view; ignored where all views are trained at once.

    Raises:
        UsageError: the first that makes no sense.
    """
    views: tuple[str, ...] = options.streams
    if choice.method_class.joint:
        views = options.views or options.streams
        student = views[0]
    return ResolvedCotrain(
        **vars(resolve_view(options, choice, student)),
        views=tuple(views),
        student=options.student,
        partner=options.partner,
        init_from=options.init_from,
    )


# ── all views at once ────────────────────────────────────────────────────────────────────────


def plan_together(
    workspace: Workspace, options: ResolvedCotrain, progress: Progress
) -> TrainingPlan:
    """Plans a run that trains all views at once."""
    starts = list(options.init_from)
    if starts == ["newest"]:
        newest = newest_starts(workspace, options, options.views)
        starts = [start.label for start in newest.values()]
    return plan_joint_training(workspace, options, options.views, starts, progress)


# ── student and partner ──────────────────────────────────────────────────────────────────────


def newest_starts(
    workspace: Workspace, options: ResolvedCotrain, views: Sequence[str]
) -> dict[str, Artifact]:
    """Returns the newest pretrained checkpoint of each view, all from one pack.

    Raises:
        MissingInput: there is none of a view.
    """
    pack = find_pack(workspace, options.pack, list(views)) if options.pack else None
    fitting = _fitting(options.method_class) | {"pretrained_only": True}
    first, *others = views
    found = {first: find_checkpoint(workspace, first, pack=pack, **fitting)}
    pack = pack_of(workspace, found[first], options.pack, views)
    for view in others:
        found[view] = find_checkpoint(workspace, view, pack=pack, **fitting)
    return found


def find_pair(workspace: Workspace, options: ResolvedCotrain) -> tuple[Artifact, Artifact]:
    """Returns the student and its partner: the newest of each view, from one pack.

    Raises:
        MissingInput: there is none of a view.
        VidsslError: they were trained on different packs.
    """
    view, other = options.view, options.partner_view
    pack = find_pack(workspace, options.pack, [view, other]) if options.pack else None
    fitting = _fitting(options.method_class)
    student = find_checkpoint(workspace, view, options.student, pack=pack, **fitting)
    pack = pack_of(workspace, student, options.pack, options.views)
    partner = find_checkpoint(workspace, other, options.partner, pack=pack, **fitting)
    if partner.parents.get("pack", pack.digest) != pack.digest:
        raise VidsslError(
            f"{student.label} and {partner.label} were trained on different packs: "
            "their videos cannot be compared"
        )
    return student, partner


def _fitting(method_class: type[Method]) -> dict[str, Any]:
    """Returns what :func:`find_checkpoint` must know of a method."""
    return {"context": method_class.context, "used_by": method_class.name}


def _as_typed_before(
    workspace: Workspace, options: ResolvedCotrain, pair: tuple[Artifact, Artifact]
) -> tuple[Artifact, Artifact]:
    """Keeps a command that is merely typed again from starting another cycle.

    The newest student is then the command's own result. As long as its partner is still the
    newest, the same pair is meant, and the finished run is found; with a newer partner the next
    cycle is meant.
    """
    student, partner = pair
    before = workspace.by_digest(student.parents.get("student", ""))
    repeated = (
        options.student is None
        and student.recipe.get("stage") == "cotrain"
        and student.recipe.get("method_name") == options.recipe.method
        and student.parents.get("partner") == partner.digest
        and before is not None
    )
    return (before, partner) if repeated and before is not None else pair


def plan_cotraining(
    workspace: Workspace,
    options: ResolvedCotrain,
    student: Artifact,
    partner: Artifact,
    progress: Progress = SILENT,
) -> TrainingPlan:
    """Finds the data of a student and fits the recipe to it; loads no weights.

    Raises:
        UsageError: an option does not fit the student, the partner or the data.
    """
    options, data, notes = fit_to_pair(workspace, options, student, partner)
    name = options.name or f"{options.view}-{options.recipe.method}"
    progress.say(
        f"cotrain {name}: student {student.label}, partner {partner.label}, of {data.pack.label}, "
        + data.in_words(options.recipe.name)
    )
    return TrainingPlan(
        stage="cotrain",
        name=name,
        options=options,
        data=data,
        parents=data.parents({"student": student, "partner": partner}),
        make_method=lambda: _make_method(options, student, partner, data, progress),
        notes=notes + without_steps(options.recipe, len(data.videos)),
    )


def fit_to_pair(
    workspace: Workspace, options: ResolvedCotrain, student: Artifact, partner: Artifact
) -> tuple[ResolvedCotrain, TrainingData, list[str]]:
    """Returns the options fitted to student and data, the data, and a sentence for each change.

    Raises:
        UsageError: an option does not fit the student, the partner or the data.
    """
    pack = pack_of(workspace, student, options.pack, options.views)
    split = options.split if options.split is not None else student.recipe.get("split")
    data = training_data(workspace, pack, split, int(student.recipe.get("seed", options.seed)))
    spec = checkpoint_spec(student, options.view)
    for each in (spec, checkpoint_spec(partner, options.partner_view)):
        check_context(options.recipe.method, each)
    options = replace(options, recipe=like_encoder(options.recipe, spec))
    options, notes = fit_options(options, data)
    return options, data, notes


def _make_method(
    options: ResolvedCotrain,
    student: Artifact,
    partner: Artifact,
    data: TrainingData,
    progress: Progress,
) -> Method:
    view, other = options.view, options.partner_view
    encoders = {
        view: with_clip_spec(checkpoint_encoder(student, view), options.recipe.clip),
        other: checkpoint_encoder(partner, other),
    }
    method = options.method_class.build(options.recipe.config, encoders, options.seed)
    give_neighbours(method, list(encoders.values()), data, options.device, progress)
    return load_extra_state(method, student)
