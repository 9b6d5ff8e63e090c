"""The mask view: the probability that a pixel belongs to a person, in 8 bits.

A stored frame is [H, W, 1]: 255 times the probability, without a threshold. It is 0 everywhere if
nobody was found. :mod:`vidssl.views.person_segmentation` or :mod:`vidssl.views.blazepose` derives
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vidssl.views.blazepose import BLAZEPOSE
from vidssl.views.deriver import Deriver
from vidssl.views.stacked_channels import StackedView
from vidssl.views.view import mirrored

if TYPE_CHECKING:
    import torch


class MaskView(StackedView):
    """Where people are; or all things, if it was extracted with `--things`."""

    name: ClassVar[str] = "mask"
    channels: ClassVar[int] = 1
    default_codec: ClassVar[str] = "webp"
    models: ClassVar[tuple[str, ...]] = (
        "maskrcnn_resnet50_fpn_v2",
        "deeplabv3_resnet50",
        "lraspp_mobilenet_v3_large",
        BLAZEPOSE,
    )
    native: ClassVar[str] = "one channel; x/255 with x in 0..255"

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [..., 1, T, H, W] in 0..1."""
        return x.float() / 255

    def flip(self, frames: np.ndarray) -> np.ndarray:
        """Mirrors [T, H, W, 1] left to right."""
        return mirrored(frames)

    def flip_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Mirrors [1, T, H, W] left to right."""
        return x.flip(-1)

    def deriver(self, model: str = "") -> type[Deriver]:
        if model == BLAZEPOSE:
            from vidssl.views.blazepose.derivers import BlazePoseMask

            return BlazePoseMask
        from vidssl.views.person_segmentation import MaskDeriver  # a network: training needs none

        return MaskDeriver
