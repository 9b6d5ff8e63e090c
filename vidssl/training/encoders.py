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


def new_encoder(
    recipe: Recipe, view: str, presentation: str | None = None, context: str | None = None
) -> Encoder:
    """Makes the encoder that a recipe describes for a view, with fresh weights.

    Args:
        presentation: the form in which the view is shown to it; None: as the recipe's
            augmentation says.
        context: above its backbone; None: what the method needs.
    """
    context = context or METHODS[recipe.method].context
    if presentation is None:
        presentation = get_view(view).shown_as(recipe.augment.presentation)
    return Encoder(
        EncoderSpec(
            view=view,
            backbone=recipe.network.backbone,
            channels=get_view(view).input_channels(presentation),
            frames=recipe.clip.frames,
            stride=recipe.clip.stride,
            size=recipe.clip.size,
            project=None if context else recipe.network.project or None,
            head_norm=recipe.network.head_norm and not context,
            blocks=recipe.clip.blocks,
            context=context,
            presentation=presentation,
        )
    )


def like_encoder(recipe: Recipe, spec: EncoderSpec) -> Recipe:
    """Returns the recipe with the network of an encoder to start from, and with its clip.

    Fields of the clip that the user set stay.

    Raises:
        UsageError: the user wants another backbone, or the method cannot learn from that many
            blocks.
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
    return replace(
        recipe, network=NetworkSpec(spec.backbone, spec.project or 0, spec.head_norm), clip=whole
    )


def check_context(method_name: str, spec: EncoderSpec) -> None:
    """Checks that an encoder has above its backbone what a method needs.

    Raises:
        UsageError: it has a projection head instead of the method's context, or the reverse.
    """
    wanted = METHODS[method_name].context
    if wanted != spec.context:
        top = "a projection head" if wanted is None else "a context over blocks"
        raise UsageError(
            f"{method_name} needs {top}, and the {spec.view} encoder it is given has none"
        )


def with_clip_spec(encoder: Encoder, clip: ClipSpec) -> Encoder:
    """Notes in an encoder's spec the clips that it is trained on from now on; returns it."""
    encoder.spec = replace(encoder.spec, **vars(clip))
    return encoder


def load_extra_state(method: Method, start: Artifact) -> Method:
    """Loads what an earlier run saved beside its encoder, such as prototypes; returns the method.

    Args:
        start: the checkpoint of that run.
    """
    method.load_extra_state(checkpoint_tensors(start))
    return method
