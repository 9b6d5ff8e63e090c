"""Cropping and resizing uint8 frames, in the loader's threads.

Legend: T frames, H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from vidssl.augment.drawing import Box
from vidssl.resizing import resize as resize_frame


def crop_resize(frames_THWC: np.ndarray, box: Box, size: int, resize: str = "area") -> np.ndarray:
    """Gives the box of every frame as a square: uint8 [T, H, W, C] → [T, size, size, C].

    Args:
        resize: "area" averages over area when shrinking, which does not alias, and is bilinear
            when growing. "bilinear", "bicubic" and "nearest" are PIL's: the first two widen their
            filter when shrinking.
    """
    return RESIZE[resize](cut(frames_THWC, box), size)


def cut(frames_THWC: np.ndarray, box: Box) -> np.ndarray:
    """Gives the box of every frame, in whole pixels, at least one: a view of the frames."""
    height, width = frames_THWC.shape[1:3]
    left, right = _pixels(box.left, box.width, width)
    top, bottom = _pixels(box.top, box.height, height)
    return frames_THWC[:, top:bottom, left:right]


def _pixels(begin: float, extent: float, size: int) -> tuple[int, int]:
    first = min(round(begin * size), size - 1)
    return first, min(max(first + round(extent * size), first + 1), size)


def by_area(frames_THWC: np.ndarray, size: int) -> np.ndarray:
    """Resizes to [T, size, size, C]: by area when shrinking, bilinearly when growing."""
    time, height, width, channels = frames_THWC.shape
    shrinks = width >= size and height >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((time, size, size, channels), np.uint8)
    for t in range(time):
        out[t] = resize_frame(frames_THWC[t], (size, size), method)
    return out


def as_pil(mode: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Gives a resizing to [T, size, size, C] that differs from PIL's by rounding alone."""

    def resize(frames_THWC: np.ndarray, size: int) -> np.ndarray:
        x_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        y_TCHW = F.interpolate(x_TCHW, (size, size), mode=mode, antialias=True)
        return np.ascontiguousarray(y_TCHW.permute(0, 2, 3, 1).numpy())

    return resize


def nearest(frames_THWC: np.ndarray, size: int) -> np.ndarray:
    """Resizes to [T, size, size, C] by the pixel under each new pixel's centre, as PIL."""
    height, width = frames_THWC.shape[1:3]
    centre = np.arange(size) + 0.5
    rows, columns = (centre * height / size).astype(int), (centre * width / size).astype(int)
    return frames_THWC[:, rows[:, None], columns]


RESIZE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "area": by_area,
    "bilinear": as_pil("bilinear"),
    "bicubic": as_pil("bicubic"),
    "nearest": nearest,
}
