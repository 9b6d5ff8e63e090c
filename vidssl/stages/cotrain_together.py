"""`vidssl cotrain --views …`: networks of several views trained at once, from the start.

Unlike a student and its frozen partner, all views learn, and one checkpoint holds all encoders.
"""

from __future__ import annotations

from vidssl.artifacts import Workspace
from vidssl.backbones import Encoder
from vidssl.errors import UsageError
from vidssl.objectives import OBJECTIVES, Objective
from vidssl.progress import SILENT, Progress
from vidssl.recipes import Recipe
from vidssl.stages.inputs import find_pack, training_data
from vidssl.stages.pretrain import encoder_spec
from vidssl.stages.training import (
    TrainingOptions,
    TrainingPlan,
    choose_recipe,
    fit_to_data,
    for_stream,
)
from vidssl.views import get_view


def trains_together(method: str) -> bool:
    """Whether a method trains the networks of several views at once."""
    return method in OBJECTIVES and OBJECTIVES[method].together


def plan(
    workspace: Workspace,
    options: TrainingOptions,
    views: tuple[str, ...],
    progress: Progress = SILENT,
) -> TrainingPlan:
    """Resolves inputs and recipe for several views, without doing any work.

    Raises:
        UsageError: no view, an unknown one, or one twice.
    """
    names = [get_view(view).name for view in views]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{options.method} takes each of its views once, such as --views rgb,flow")
    pack = find_pack(workspace, options.pack, names)
    data = training_data(workspace, pack, options.split, options.seed)
    # Evaluation takes the first view unless it is told another one.
    options = for_stream(options, names[0])
    recipe, notes = fit_to_data(choose_recipe(options), len(data.videos))
    parents = {"pack": pack}
    if data.annotations is not None:
        parents["annotations"] = data.annotations
    progress.say(
        f"cotrain: {' and '.join(names)} of {pack.label}, {len(data.videos)} training videos "
        f"({data.note}), recipe {recipe.name}"
    )
    return TrainingPlan(
        stage="cotrain",
        name=options.name or f"{'-'.join(names)}-{recipe.method}",
        options=options,
        recipe=recipe,
        data=data,
        parents=parents,
        make_objective=lambda: _objective(recipe, names, options.seed),
        notes=notes,
        views=tuple(names),
    )


def _objective(recipe: Recipe, views: list[str], seed: int) -> Objective:
    encoders = [Encoder(encoder_spec(recipe, view)) for view in views]
    return OBJECTIVES[recipe.method](recipe.config, encoders, seed=seed)  # type: ignore[call-arg]
