"""The encoders that a training run starts from: new ones, and those of a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipSpec
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import NetworkSpec, Recipe
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_tensors


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
