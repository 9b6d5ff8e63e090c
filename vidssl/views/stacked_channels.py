"""Views whose channels are stored one above another, as one grey picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from vidssl.views.codecs import get_codec
from vidssl.views.view import View

if TYPE_CHECKING:
    import torch


class StackedView(View):
    """A view of any number of channels: [H, W, C] is stored as a grey picture [C·H, W].

    As channels of a colour picture JPEG would mix them and halve their resolution, and there are
    no pictures of 17 channels.
    """

    def to_image(self, frame: np.ndarray) -> np.ndarray:
        """Lays [H, W, C] out as one grey picture [C·H, W], the first channel on top."""
        return np.ascontiguousarray(frame.transpose(2, 0, 1)).reshape(-1, frame.shape[1])

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Takes [C·H, W] apart into [H, W, C].

        Raises:
            ValueError: not a grey picture whose height is C times something.
        """
        channels = self._channels(image)
        # OpenCV lays channels side by side many times faster than a transposed copy does.
        return cv2.merge(list(channels)).reshape(*channels.shape[1:], self.channels)

    def decode_for_copying(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        """Returns [H, W, C] of which each channel lies by itself, as it was decoded."""
        image = get_codec(codec or self.default_codec).decode(blob)
        return self._channels(image).transpose(1, 2, 0)

    def _channels(self, image: np.ndarray) -> np.ndarray:
        """Takes [C·H, W] apart into [C, H, W], the same memory."""
        if image.ndim != 2 or image.shape[0] % self.channels:
            raise ValueError(
                f"a picture of shape {image.shape} is not {self.channels} channels of {self.name} "
                "one above another"
            )
        return image.reshape(self.channels, -1, image.shape[1])

    def from_planes(self, pictures: torch.Tensor) -> torch.Tensor:
        """Takes [T, 1, C·H, W] apart into [T, H, W, C]."""
        return pictures[:, 0].unflatten(1, (self.channels, -1)).permute(0, 2, 3, 1)
