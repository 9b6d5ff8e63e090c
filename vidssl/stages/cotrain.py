"""`vidssl cotrain`: one stream learns from what a frozen encoder of the other one finds alike.

Direction is simply who the student is; several cycles are several runs in a row, each with the
newest of both streams (Han et al. 2020, §3.2; Toering et al. 2022). Methods that train all streams
at once are planned by :mod:`vidssl.training.joint`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vidssl.backbones import Encoder
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training import joint
from vidssl.training.data import training_data
from vidssl.training.encoders import check_context, like_encoder, load_extra_state, with_clip_spec
from vidssl.training.fit_to_data import fit_to_data, require_labels, without_steps
from vidssl.training.options import (
    TrainingOptions,
    check_options,
    choose_method,
    choose_recipe,
    default_recipe,
    for_stream,
)
from vidssl.training.training_run import TrainingPlan, carry_out
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.find import find_checkpoint, find_pack, pack_of
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class CotrainOptions(TrainingOptions):
    """Options of `vidssl cotrain`.

    Attributes:
        student, partner: checkpoints; None: the newest of the stream, and of the other one.
        cycles: 0 trains the one stream once; n trains both streams n times in turn.
        streams: the two streams, the one that is trained first in every cycle leading.
        views: those that a method trains at once; empty: both streams.
        init_from: for methods that train all streams at once: checkpoints whose encoders are the
            start, or "newest"; none: from scratch.
    """

    student: str | None = None
    partner: str | None = None
    cycles: int = 0
    streams: tuple[str, str] = ("rgb", "flow")
    views: tuple[str, ...] = ()
    init_from: tuple[str, ...] = ()


def plan_cycles(cycles: int, views: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (student, partner) for every run of `cycles` cycles over two views."""
    first, second = views
    return [(first, second), (second, first)] * cycles


def run(workspace: Workspace, options: CotrainOptions, progress: Progress = SILENT) -> StageResult:
    """Co-trains `options.stream` once, or several views at once; gives the checkpoint."""
    if check(options).joint:
        return carry_out(workspace, plan_together(workspace, options, progress), progress)
    pair = find_pair(workspace, options)
    if not options.new:
        pair = _as_typed_before(workspace, options, pair)
    return carry_out(workspace, plan(workspace, options, *pair, progress), progress)


def run_cycles(
    workspace: Workspace, options: CotrainOptions, progress: Progress = SILENT
) -> Iterator[StageResult]:
    """Co-trains both streams in turn, `options.stream` first, from the newest untaught pair.

    A run that is finished already is taken as it is; gives each run's result as it comes.
    """
    if options.student or options.partner:
        raise UsageError("--cycles chooses students and partners itself: leave --student and "
                         "--partner away")  # fmt: skip
    if check(options).joint:
        raise UsageError(f"{method_of(options).name} trains all streams at once: "
                         "leave --cycles away")  # fmt: skip
    streams = (options.stream, partner_stream(options))
    for stream in streams:
        check_options(for_stream(options, stream), "cotrain")
    newest = newest_starts(workspace, options, streams)
    turns = plan_cycles(options.cycles, streams)
    for student, partner in turns:
        turn = for_stream(options, student)
        result = carry_out(
            workspace,
            plan(workspace, turn, newest[student], newest[partner], progress),  # type: ignore[arg-type]
            progress,
        )
        if result.artifact is None:  # a dry run knows no further
            order = ", ".join(student for student, _ in turns)
            note = f"{len(turns)} turns, each from what came before: {order}; this is the first"
            yield replace(result, notes=[*result.notes, note])
            return
        yield result
        newest[student] = result.artifact


def check(options: CotrainOptions) -> type[Method]:
    """Checks what options say by themselves, and gives the method they mean.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(options.stream)
    method = method_of(options)
    if method.joint:
        if options.student or options.partner:
            raise UsageError(
                f"{method.name} trains all streams at once, without student and partner: "
                "give --init-from to start from checkpoints"
            )
        joint.check(options, options.views or options.streams)
        return method
    if options.init_from:
        raise UsageError(f"{method.name} starts from its student: use --student")
    if options.views:
        raise UsageError(
            f"{method.name} has one student: --stream says which, and --views is for methods "
            "that train several views at once, such as cocon"
        )
    partner_stream(options)
    check_options(options, "cotrain")
    return method


def method_of(options: CotrainOptions) -> type[Method]:
    """Returns the method that the options mean."""
    recipe = options.recipe or default_recipe(options.device)
    return choose_method("cotrain", options.method, recipe)


def plan_together(
    workspace: Workspace, options: CotrainOptions, progress: Progress
) -> TrainingPlan:
    """Plans a run that trains all streams at once."""
    starts = list(options.init_from)
    streams = options.views or options.streams
    if starts == ["newest"]:
        starts = [start.label for start in newest_starts(workspace, options, streams).values()]
    return joint.plan(workspace, options, streams, starts, progress)


def newest_starts(
    workspace: Workspace, options: CotrainOptions, streams: Sequence[str]
) -> dict[str, Artifact]:
    """Returns the newest pretrained checkpoint of each stream, all from one pack."""
    pack = find_pack(workspace, options.pack, list(streams)) if options.pack else None
    first, *others = streams
    method = method_of(options)

    def newest(stream: str, pack: Artifact | None) -> Artifact:
        return find_checkpoint(
            workspace,
            stream,
            pack=pack,
            pretrained_only=True,
            context=method.context,
            used_by=method.name,
        )

    found = {first: newest(first, pack)}
    pack = pack_of(workspace, found[first], options.pack, streams)
    for stream in others:
        found[stream] = newest(stream, pack)
    return found


def find_pair(workspace: Workspace, options: CotrainOptions) -> tuple[Artifact, Artifact]:
    """Returns the student and its partner: the newest of each stream, from one pack."""
    other, method = partner_stream(options), method_of(options)
    pack = find_pack(workspace, options.pack, [options.stream, other]) if options.pack else None
    fitting: dict[str, Any] = {"context": method.context, "used_by": method.name}
    student = find_checkpoint(workspace, options.stream, options.student, pack=pack, **fitting)
    pack = pack_of(workspace, student, options.pack, options.streams)
    partner = find_checkpoint(workspace, other, options.partner, pack=pack, **fitting)
    if partner.parents.get("pack", pack.digest) != pack.digest:
        raise VidsslError(
            f"{student.label} and {partner.label} were trained on different packs: "
            "their videos cannot be compared"
        )
    return student, partner


def partner_stream(options: CotrainOptions) -> str:
    """Returns the stream that is not the student's."""
    if options.stream not in options.streams:
        raise UsageError(
            f"cotrain has streams {' and '.join(options.streams)}, not {options.stream}"
        )
    return next(s for s in options.streams if s != options.stream)


def _as_typed_before(
    workspace: Workspace, options: CotrainOptions, pair: tuple[Artifact, Artifact]
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
        and student.recipe.get("method_name") == method_of(options).name
        and student.parents.get("partner") == partner.digest
        and before is not None
    )
    return (before, partner) if repeated and before is not None else pair


def plan(
    workspace: Workspace,
    options: CotrainOptions,
    student: Artifact,
    partner: Artifact,
    progress: Progress = SILENT,
) -> TrainingPlan:
    """Resolves data and recipe for one student and its partner, without doing any work."""
    pack = pack_of(workspace, student, options.pack, options.streams)
    split = options.split if options.split is not None else student.recipe.get("split")
    data = training_data(workspace, pack, split, int(student.recipe.get("seed", options.seed)))
    encoder = checkpoint_encoder(student, options.stream)
    recipe = choose_recipe(options, "cotrain")
    taught_by = checkpoint_spec(partner, partner_stream(options))
    for spec in (encoder.spec, taught_by):
        check_context(recipe.method, spec)
    recipe = like_encoder(recipe, encoder.spec)
    recipe, notes = fit_to_data(recipe, len(data.videos))
    notes += without_steps(recipe, len(data.videos))
    require_labels(recipe, data)
    parents = {"pack": pack, "student": student, "partner": partner}
    if data.annotations is not None:
        parents["annotations"] = data.annotations
    name = options.name or f"{options.stream}-{recipe.method}"
    progress.say(
        f"cotrain {name}: student {student.label}, partner {partner.label}, of {pack.label}, "
        f"{len(data.videos)} training videos ({data.note}), recipe {recipe.name}"
    )
    return TrainingPlan(
        stage="cotrain",
        name=name,
        options=options,
        recipe=recipe,
        data=data,
        parents=parents,
        make_method=lambda: _method(recipe, student, encoder, partner, options),
        notes=notes,
    )


def _method(
    recipe: Recipe,
    student: Artifact,
    encoder: Encoder,
    partner: Artifact,
    options: CotrainOptions,
) -> Method:
    with_clip_spec(encoder, recipe.clip)
    other = partner_stream(options)
    encoders = {options.stream: encoder, other: checkpoint_encoder(partner, other)}
    method = METHODS[recipe.method].build(recipe.config, encoders, options.seed)
    return load_extra_state(method, student)
