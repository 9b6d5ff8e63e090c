"""Shrinks frames by area: every new pixel is the mean of the area it covers.

The result is that of OpenCV's INTER_AREA, except for the order in which floats are added. It takes
a third of the time: OpenCV works pixel by pixel, while a weighted sum of rows is one vectorised
operation. Columns are summed as rows of the transposed frame.

Legend: T frames, H and W pixels, S pixels of the side that is made, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

SUM = 0  # the mode of torch.embedding_bag that adds up


@dataclass(frozen=True)
class AreaWeights:
    """The weights of old pixels in each of S new pixels, along one side.

    Attributes:
        old: numbers of the old pixels, those of the first new pixel first.
        weight: of each of them; the weights of one new pixel add up to 1.
        begin: where each new pixel's weights begin [S].
    """

    old: Tensor
    weight: Tensor
    begin: Tensor

    def sum_rows(self, rows: Tensor) -> Tensor:
        """Returns the weighted sums of rows: float32 [old, ·] → [S, ·]."""
        summed, *_ = torch.embedding_bag(
            rows, self.old, self.begin, False, SUM, False, self.weight, False
        )
        return summed


@lru_cache(maxsize=4096)
def area_weights(old: int, new: int) -> AreaWeights:
    """Returns the weights for shrinking a side of `old` pixels to `new`, which is not more."""
    edges = np.arange(new + 1) * (old / new)
    first = np.floor(edges[:-1] + 1e-9).astype(int)
    last = np.minimum(np.ceil(edges[1:] - 1e-9).astype(int), old)
    count = last - first
    begin = np.cumsum(count) - count
    pixel = np.repeat(first - begin, count) + np.arange(count.sum())
    covered = np.minimum(np.repeat(edges[1:], count), pixel + 1)
    covered -= np.maximum(np.repeat(edges[:-1], count), pixel)
    weight = torch.from_numpy(covered * (new / old)).float()
    return AreaWeights(torch.from_numpy(pixel), weight, torch.from_numpy(begin))


def shrink_by_area(frames: Sequence[np.ndarray], into_TSSC: np.ndarray) -> None:
    """Shrinks frames, uint8 [H, W, C] each, C at most 4, into squares [T, S, S, C]."""
    (height, width, channels), size = frames[0].shape, into_TSSC.shape[1]
    of_rows, of_columns = area_weights(height, size), area_weights(width, size)
    # Memory that is used for all frames, shared by NumPy, OpenCV and torch.
    x_HWC = np.empty((height, width, channels), np.float32)
    y_WSC = np.empty((width, size, channels), np.float32)
    x_rows, y_rows = (torch.from_numpy(m).flatten(1) for m in (x_HWC, y_WSC))
    for frame_HWC, into_SSC in zip(frames, into_TSSC, strict=True):
        np.copyto(x_HWC, frame_HWC)
        fewer_rows = of_rows.sum_rows(x_rows).numpy()
        cv2.transpose(fewer_rows.reshape(size, width, channels), dst=y_WSC)
        fewer_columns = of_columns.sum_rows(y_rows).numpy()
        rounded = cv2.convertScaleAbs(fewer_columns).reshape(size, size, channels)
        cv2.transpose(rounded, dst=into_SSC)
