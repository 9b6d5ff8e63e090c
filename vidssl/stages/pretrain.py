"""`vidssl pretrain`: learn an encoder of one stream from packed video alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vidssl.artifacts import Artifact, Workspace
from vidssl.backbones import Encoder, EncoderSpec
from vidssl.checkpoints import checkpoint_encoder
from vidssl.errors import UsageError, VidsslError
from vidssl.objectives import OBJECTIVES, Objective
from vidssl.progress import SILENT, Progress
from vidssl.recipes import Recipe
from vidssl.stages.inputs import find_pack, training_data
from vidssl.stages.result import StageResult
from vidssl.stages.training import (
    TrainingOptions,
    TrainingPlan,
    carry_out,
    choose_recipe,
    fit_to_data,
)
from vidssl.views import get_view


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """Options of `vidssl pretrain`.

    Attributes:
        init_from: a checkpoint whose encoder of this stream is the start.
    """

    init_from: str | None = None


def run(
    workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT
) -> StageResult:
    """Pretrains one stream; gives its checkpoint."""
    return carry_out(workspace, plan(workspace, options, progress), progress)


def plan(
    workspace: Workspace, options: PretrainOptions, progress: Progress = SILENT
) -> TrainingPlan:
    """Resolves inputs and recipe without doing any work."""
    view = get_view(options.stream)
    if options.method in OBJECTIVES and OBJECTIVES[options.method].together:
        raise UsageError(
            f"{options.method} trains several views at once: "
            f"vidssl cotrain --method {options.method} --views rgb,flow"
        )
    pack = find_pack(workspace, options.pack, [view.name])
    data = training_data(workspace, pack, options.split, options.seed)
    recipe, notes = fit_to_data(choose_recipe(options), len(data.videos))
    parents = {"pack": pack}
    if data.annotations is not None:
        parents["annotations"] = data.annotations
    start = workspace.resolve("checkpoint", options.init_from) if options.init_from else None
    if start is not None:
        parents["init"] = start
    progress.say(
        f"pretrain: {view.name} of {pack.label}, {len(data.videos)} training videos "
        f"({data.note}), recipe {recipe.name}"
    )
    return TrainingPlan(
        stage="pretrain",
        name=options.name or f"{view.name}-{recipe.method}",
        options=options,
        recipe=recipe,
        data=data,
        parents=parents,
        make_objective=lambda: _objective(recipe, view.name, start, options.seed),
        notes=notes,
    )


def encoder_spec(recipe: Recipe, stream: str) -> EncoderSpec:
    """Gives the spec of the encoder that a recipe describes for a stream."""
    context = OBJECTIVES[recipe.method].context
    return EncoderSpec(
        view=stream,
        backbone=recipe.network.backbone,
        channels=get_view(stream).channels,
        frames=recipe.clip.frames,
        stride=recipe.clip.stride,
        size=recipe.clip.size,
        project=None if context else recipe.network.project,
        blocks=recipe.clip.blocks,
        context=context,
    )


def _objective(recipe: Recipe, stream: str, start: Artifact | None, seed: int) -> Objective:
    spec = encoder_spec(recipe, stream)
    if start is None:
        encoder = Encoder(spec)
    else:
        given = checkpoint_encoder(start, stream)
        shown = {"presentation": given.spec.presentation, "channels": given.spec.channels}
        encoder = Encoder(replace(spec, **shown))  # type: ignore[arg-type]
        try:
            encoder.load_state_dict(given.state_dict(), strict=True)
        except RuntimeError as error:
            raise VidsslError(
                f"{start.label} does not fit a {recipe.network.backbone} encoder of {stream}: "
                f"{str(error).splitlines()[-1].strip()}"
            ) from error
    return OBJECTIVES[recipe.method](recipe.config, encoder, seed=seed)  # type: ignore[call-arg]
