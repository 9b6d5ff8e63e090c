"""Plans of `vidssl cotrain` for methods that train the encoders of all views in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vidssl.backbones import Encoder
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import training_data
from vidssl.training.encoders import check_context, like_encoder, new_encoder, with_clip_spec
from vidssl.training.fit_to_data import fit_options
from vidssl.training.options import ResolvedOptions
from vidssl.training.training_run import TrainingPlan
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec, checkpoint_views
from vidssl.workspace.find_inputs import find_pack, pack_of
from vidssl.workspace.parent_roles import start_parents
from vidssl.workspace.workspace import Workspace


def check_views(method_class: type[Method], views: Sequence[str]) -> None:
    """Checks the views that a method is to train at once.

    Raises:
        UsageError: an unknown view, one that is given twice, or as many as the method cannot take.
    """
    if len({get_view(view).name for view in views}) != len(views):
        raise UsageError("each of the views is given once, such as --views rgb,flow")
    wanted = method_class.view_count
    if wanted is not None and len(views) != wanted:
        raise UsageError(f"{method_class.name} compares {wanted} streams, not {len(views)}")


def plan_joint_training(
    workspace: Workspace,
    options: ResolvedOptions,
    views: Sequence[str],
    init_from: Sequence[str],
    progress: Progress = SILENT,
) -> TrainingPlan:
    """Finds the inputs of a run over all `views` and fits its recipe to them; trains nothing.

    Args:
        options: of the first view.
        init_from: checkpoints whose encoders are the start. Views that none of them has start from
            scratch.
    """
    starts = find_starts(workspace, views, init_from)
    pack = find_pack(workspace, options.pack, list(views))
    for start in starts.values():
        pack = _same_pack(workspace, start, starts, pack, named=options.pack is not None)
    data = training_data(workspace, pack, options.split, options.seed)
    recipe = options.recipe
    for view, start in starts.items():
        spec = checkpoint_spec(start, view)
        check_context(recipe.method, spec)
        recipe = like_encoder(recipe, spec)
    options, notes = fit_options(replace(options, recipe=recipe), data)
    begin = ", ".join(f"{v} from {a.label}" for v, a in starts.items()) or "from scratch"
    name = options.name or f"{'-'.join(views)}-{options.recipe.method}"
    together = f"{' and '.join(views)} of {pack.label} together, {begin}"
    progress.say(f"cotrain {name}: {together}, {data.in_words(options.recipe.name)}")
    parents = data.parents(start_parents(starts.values()))
    return TrainingPlan(
        stage="cotrain",
        name=name,
        views=tuple(views),
        options=options,
        data=data,
        parents=parents,
        make_method=lambda: _make_method(options.recipe, views, starts, options.seed),
        notes=notes,
    )


def find_starts(
    workspace: Workspace, views: Sequence[str], init_from: Sequence[str]
) -> dict[str, Artifact]:
    """Returns the checkpoint that each view starts from: the first named one that has the view.

    Raises:
        VidsslError: there is no such checkpoint, or it has an encoder of none of the views.
    """
    named = [workspace.resolve("checkpoint", text) for text in init_from]
    for start in named:
        if not set(checkpoint_views(start)) & set(views):
            raise VidsslError(f"{start.label} has no encoder of {' or '.join(views)}")
    found = {view: [a for a in named if view in checkpoint_views(a)] for view in views}
    return {view: starts[0] for view, starts in found.items() if starts}


def _same_pack(
    workspace: Workspace,
    start: Artifact,
    starts: Mapping[str, Artifact],
    newest: Artifact,
    *,
    named: bool,
) -> Artifact:
    """Returns the pack of a start.

    Args:
        newest: the pack of starts that have none; the wanted one where it is `named`.

    Raises:
        UsageError: it is another pack than the one that was named, or that of the first start.
    """
    pack = _pack_of(workspace, start, newest)
    wanted = newest if named else _pack_of(workspace, next(iter(starts.values())), newest)
    if pack.digest != wanted.digest:
        raise UsageError(f"{start.label} was trained on {pack.label}, not on {wanted.label}")
    return pack


def _pack_of(workspace: Workspace, start: Artifact, newest: Artifact) -> Artifact:
    return pack_of(workspace, start, newest.label, ())


def _make_method(
    recipe: Recipe, views: Sequence[str], starts: Mapping[str, Artifact], seed: int
) -> Method:
    encoders: dict[str, Encoder] = {}
    for view in views:
        if view in starts:
            encoder = with_clip_spec(checkpoint_encoder(starts[view], view), recipe.clip)
        else:
            encoder = new_encoder(recipe, view)
        encoders[view] = encoder
    return METHODS[recipe.method].build(recipe.config, encoders, seed)
