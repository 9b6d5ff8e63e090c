"""Turns a clip's pixels into network input: colour changes, then the view's own scale.

Legend: M clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidssl.augment import POLICIES, AugmentSpec, ColourDraw, apply_colour
from vidssl.views import get_view
from vidssl.views.view import NATIVE


def network_input(
    pixels_MCTHW: Tensor,
    view: str,
    presentation: str = NATIVE,
    draws: Sequence[ColourDraw] | None = None,
    augment: AugmentSpec = POLICIES["truthful"],
) -> Tensor:
    """Returns network input, float32 [M, C', T, H, W], of stored pixels, uint8 [M, C, T, H, W].

    Args:
        presentation: how the view is shown to the network (:meth:`vidssl.views.View.present`).
        draws: colour changes, as of :func:`vidssl.augment.apply_colour`.
    """
    levels = get_view(view).levels(pixels_MCTHW, presentation)
    if draws:
        # Colour changes work on one channel at a time, which is faster where it is contiguous.
        levels = levels.to(torch.float32, memory_format=torch.contiguous_format)
        levels = apply_colour(levels, draws, augment)
    return get_view(view).normalise(levels, presentation)
