"""`vidssl pretrain`: an encoder of one view learns from packed video alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import training_data
from vidssl.training.encoders import load_extra_state, new_encoder
from vidssl.training.fit_to_data import fit_options
from vidssl.training.options import TrainingOptions, resolve
from vidssl.training.training_run import TrainingPlan, run_training
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.find_inputs import find_pack
from vidssl.workspace.parent_roles import start_parents
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """Options of `vidssl pretrain`.

    Attributes:
        init_from: a checkpoint whose encoder of this view is the start.
    """

    init_from: str | None = None


def run(workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT) -> StageResult:
    """Pretrains an encoder of one view; returns its checkpoint."""
    return run_training(workspace, plan_pretraining(workspace, options, progress), progress)


def plan_pretraining(
    workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT
) -> TrainingPlan:
    """Resolves the options, finds the inputs and fits the recipe to them; trains nothing.

    Raises:
        UsageError: an option makes no sense.
        VidsslError: an input is missing.
    """
    resolved = resolve(options, "pretrain")
    view = resolved.view
    pack = find_pack(workspace, resolved.pack, [view])
    data = training_data(workspace, pack, resolved.split, resolved.seed)
    resolved, notes = fit_options(resolved, data)
    start = workspace.resolve("checkpoint", options.init_from) if options.init_from else None
    if start is not None:
        resolved = replace(resolved, recipe=_with_head_of(start, view, resolved.recipe))
    recipe = resolved.recipe
    name = resolved.name or f"{view}-{recipe.method}"
    progress.say(f"pretrain {name}: {view} of {pack.label}, {data.in_words(recipe.name)}")
    return TrainingPlan(
        stage="pretrain",
        name=name,
        options=resolved,
        data=data,
        parents=data.parents() | start_parents([] if start is None else [start]),
        make_method=lambda: _make_method(recipe, view, start, resolved.seed),
        notes=notes,
    )


def _with_head_of(start: Artifact, view: str, recipe: Recipe) -> Recipe:
    """Returns the recipe with a projection head as that of the checkpoint to start from."""
    if "head_norm" in recipe.explicit:
        return recipe
    return recipe.override("network", head_norm=checkpoint_spec(start, view).head_norm)


def _make_method(recipe: Recipe, view: str, start: Artifact | None, seed: int) -> Method:
    if start is None:
        encoder = new_encoder(recipe, view)
    else:
        given = checkpoint_encoder(start, view)
        encoder = new_encoder(recipe, view, given.spec.presentation)
        try:
            encoder.load_state_dict(given.state_dict(), strict=True)
        except RuntimeError as error:
            raise VidsslError(
                f"{start.label} does not fit a {recipe.network.backbone} encoder of {view}: "
                f"{str(error).splitlines()[-1].strip()}"
            ) from error
    method = METHODS[recipe.method].build(recipe.config, {view: encoder}, seed)
    return method if start is None else load_extra_state(method, start)
