"""`vidssl pretrain`: learn an encoder of one stream from packed video alone."""

from __future__ import annotations

from dataclasses import dataclass

from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import training_data
from vidssl.training.encoders import load_extra_state, new_encoder
from vidssl.training.fit_to_data import fit_to_data, require_labels
from vidssl.training.options import TrainingOptions, check_options
from vidssl.training.training_run import TrainingPlan, carry_out
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder
from vidssl.workspace.find import find_pack
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """Options of `vidssl pretrain`.

    Attributes:
        init_from: a checkpoint whose encoder of this stream is the start.
    """

    init_from: str | None = None


def run(workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT) -> StageResult:
    """Pretrains one stream; gives its checkpoint."""
    return carry_out(workspace, plan(workspace, options, progress), progress)


def plan(
    workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT
) -> TrainingPlan:
    """Resolves inputs and recipe without doing any work."""
    recipe = check_options(options, "pretrain")
    view = get_view(options.stream)
    pack = find_pack(workspace, options.pack, [view.name])
    data = training_data(workspace, pack, options.split, options.seed)
    recipe, notes = fit_to_data(recipe, len(data.videos))
    require_labels(recipe, data)
    parents = {"pack": pack}
    if data.annotations is not None:
        parents["annotations"] = data.annotations
    start = workspace.resolve("checkpoint", options.init_from) if options.init_from else None
    if start is not None:
        parents["init"] = start
    name = options.name or f"{view.name}-{recipe.method}"
    progress.say(
        f"pretrain {name}: {view.name} of {pack.label}, {len(data.videos)} training videos "
        f"({data.note}), recipe {recipe.name}"
    )
    return TrainingPlan(
        stage="pretrain",
        name=name,
        options=options,
        recipe=recipe,
        data=data,
        parents=parents,
        make_method=lambda: _method(recipe, view.name, start, options.seed),
        notes=notes,
    )


def _method(recipe: Recipe, stream: str, start: Artifact | None, seed: int) -> Method:
    if start is None:
        encoder = new_encoder(recipe, stream)
    else:
        given = checkpoint_encoder(start, stream)
        encoder = new_encoder(recipe, stream, given.spec.presentation)
        try:
            encoder.load_state_dict(given.state_dict(), strict=True)
        except RuntimeError as error:
            raise VidsslError(
                f"{start.label} does not fit a {recipe.network.backbone} encoder of {stream}: "
                f"{str(error).splitlines()[-1].strip()}"
            ) from error
    method = METHODS[recipe.method].build(recipe.config, {stream: encoder}, seed)
    return method if start is None else load_extra_state(method, start)
