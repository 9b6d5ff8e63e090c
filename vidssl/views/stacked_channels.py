"""The base of views whose channels are stored one above another, as one grey picture."""

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

    In a colour picture JPEG would mix the channels and halve their resolution, and no picture
    format has 17 channels.
    """

    def to_image(self, frame: np.ndarray) -> np.ndarray:
        """Lays [H, W, C] out as one grey picture [C·H, W], the first channel on top."""
        return np.ascontiguousarray(frame.transpose(2, 0, 1)).reshape(-1, frame.shape[1])

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Splits [C·H, W] into channels: [H, W, C].

        Raises:
            ValueError: it is no grey picture, or its height is no multiple of C.
        """
        channels = self._channels(image)
        # cv2.merge interleaves channels many times faster than a transposed copy.
        return cv2.merge(list(channels)).reshape(*channels.shape[1:], self.channels)

    def decode_for_copying(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        """Returns [H, W, C], with each channel contiguous in memory as it was decoded."""
        image = get_codec(codec or self.default_codec).decode(blob)
        return self._channels(image).transpose(1, 2, 0)

    def _channels(self, image: np.ndarray) -> np.ndarray:
        """Returns [C·H, W] as [C, H, W], a view of the same memory."""
        if image.ndim != 2 or image.shape[0] % self.channels:
            raise ValueError(
                f"a picture of shape {image.shape} is not {self.channels} channels of {self.name} "
                "one above another"
            )
        return image.reshape(self.channels, -1, image.shape[1])

    def from_planes(self, pictures: torch.Tensor) -> torch.Tensor:
        """Splits [T, 1, C·H, W] into channels: [T, H, W, C]."""
        return pictures[:, 0].unflatten(1, (self.channels, -1)).permute(0, 2, 3, 1)
