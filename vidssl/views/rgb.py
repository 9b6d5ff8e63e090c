"""The rgb view: the decoded frames themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from vidssl.base.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidssl.views.codecs import decode_colour
from vidssl.views.view import View, mirrored, standardise

if TYPE_CHECKING:
    import torch


def standardise_rgb(x: torch.Tensor) -> torch.Tensor:
    """Standardises [..., 3, T, H, W] in 0..255 with ImageNet's mean and deviation."""
    return standardise(x, [255 * m for m in IMAGENET_MEAN], [255 * s for s in IMAGENET_STD])


class RgbView(View):
    """Red, green and blue, 0..255."""

    name: ClassVar[str] = "rgb"
    channels: ClassVar[int] = 3
    colour: ClassVar[bool] = True
    default_codec: ClassVar[str] = "jpeg90"
    command: ClassVar[str] = ""
    native: ClassVar[str] = (
        "channels red, green, blue in 0..255; (x/255 − mean)/std with ImageNet's mean "
        f"{IMAGENET_MEAN} and std {IMAGENET_STD}"
    )

    def to_image(self, frame: np.ndarray) -> np.ndarray:
        """Returns the frame: it is a picture [H, W, 3] already."""
        return frame

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Returns the picture [H, W, 3]; a grey one [H, W] gets three equal channels."""
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)

    def decode(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        """Decodes a stored frame; its header says which codec it has."""
        return decode_colour(blob)

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Standardises [..., 3, T, H, W] in 0..255 with ImageNet's mean and deviation."""
        return standardise_rgb(x)

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """Returns the frame: it is a picture already."""
        return frame

    def flip(self, frames: np.ndarray) -> np.ndarray:
        """Mirrors [T, H, W, 3] left to right."""
        return mirrored(frames)

    def flip_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Mirrors [3, T, H, W] left to right."""
        return x.flip(-1)

    def from_planes(self, pictures: torch.Tensor) -> torch.Tensor:
        """Returns pictures [T, 3, H, W] as frames; grey ones get three equal channels."""
        return pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
