"""Crops and resizes uint8 frames, in the loader's threads.

Legend: T frames, H and W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from vidssl.augment.area_resize import shrink_by_area
from vidssl.augment.random_draws import Box
from vidssl.views.resize import MOST_CHANNELS
from vidssl.views.resize import resize as resize_frame

FrameSequence = Sequence[np.ndarray]  # uint8 [H, W, C] each, or [T, H, W, C] in one


def crop_resize(
    frames: FrameSequence, box: Box, size: int, resize: str = "area", into: np.ndarray | None = None
) -> np.ndarray:
    """Returns the box of every frame as a square: T of uint8 [H, W, C] → [T, size, size, C].

    Args:
        resize: "area" averages over area when shrinking, which does not alias, and is bilinear
            when enlarging. "bilinear", "bicubic" and "nearest" are PIL's: the first two widen their
            filter when shrinking.
        into: memory for the result.
    """
    if into is None:
        into = np.empty((len(frames), size, size, frames[0].shape[2]), np.uint8)
    RESIZE_FUNCTIONS[resize](crop(frames, box), into)
    return into


def crop(frames: FrameSequence, box: Box) -> list[np.ndarray]:
    """Returns the box of every frame, without a copy."""
    part = box_slices(box, *frames[0].shape[:2])
    return [frame[part] for frame in frames]


def box_slices(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Returns the rows and columns that a box covers in a frame: whole pixels, at least one."""
    rows, columns = (_pixels(box.top, box.height, height), _pixels(box.left, box.width, width))
    return slice(*rows), slice(*columns)


def _pixels(begin: float, extent: float, size: int) -> tuple[int, int]:
    first = min(round(begin * size), size - 1)
    return first, min(max(first + round(extent * size), first + 1), size)


def resize_by_area(frames: FrameSequence, into_TSSC: np.ndarray) -> None:
    """Resizes by area when shrinking, bilinearly when enlarging."""
    size, (height, width, channels) = into_TSSC.shape[1], frames[0].shape
    if height < size or width < size:
        _frame_by_frame(frames, into_TSSC, cv2.INTER_LINEAR)
    elif height % size == width % size == 0 or channels > MOST_CHANNELS:
        _frame_by_frame(frames, into_TSSC, cv2.INTER_AREA)
    else:
        shrink_by_area(frames, into_TSSC)


def _frame_by_frame(frames: FrameSequence, into_TSSC: np.ndarray, method: int) -> None:
    size = into_TSSC.shape[1:3]
    plain = frames[0].shape[:2] != size and frames[0].shape[2] <= MOST_CHANNELS
    for frame, into_SSC in zip(frames, into_TSSC, strict=True):
        if plain:
            cv2.resize(frame, size, into_SSC, interpolation=method)
        else:
            resize_frame(frame, size, method, into_SSC)


def resize_as_pil(mode: str) -> ResizeFunction:
    """Returns a function that resizes as PIL does, except for rounding."""

    def resize(frames: FrameSequence, into_TSSC: np.ndarray) -> None:
        in_pairs = frames[0].shape[2] == 2
        x_TCHW = torch.from_numpy(_paired(frames) if in_pairs else np.stack(frames))
        size = into_TSSC.shape[1:3]
        y_TCHW = F.interpolate(x_TCHW.permute(0, 3, 1, 2), size, mode=mode, antialias=True)
        y_TSSC = y_TCHW.permute(0, 2, 3, 1)
        if in_pairs:
            _unpaired(np.ascontiguousarray(y_TSSC), into_TSSC)
        else:
            torch.from_numpy(into_TSSC).copy_(y_TSSC)

    return resize


def _paired(frames: FrameSequence) -> np.ndarray:
    """Joins frames of two channels in pairs, T of [H, W, 2] → [T/2, H, W, 4].

    torch is fast with three and four channels; with two it takes three times as long.
    """
    height, width, _ = frames[0].shape
    pairs = np.zeros((math.ceil(len(frames) / 2), height, width, 2), np.uint16)
    for t, frame in enumerate(frames):
        pairs[t // 2, ..., t % 2] = frame.view(np.uint16)[..., 0]
    return pairs.view(np.uint8)


def _unpaired(pairs: np.ndarray, into_TSS2: np.ndarray) -> None:
    """Writes the frames of such pairs into memory [T, S, S, 2]."""
    both, into = pairs.view(np.uint16), into_TSS2.view(np.uint16)[..., 0]
    into[0::2] = both[..., 0]
    into[1::2] = both[: len(into) // 2, ..., 1]


def resize_to_nearest(frames: FrameSequence, into_TSSC: np.ndarray) -> None:
    """Takes the old pixel under each new pixel's centre, as PIL does."""
    size, (height, width) = into_TSSC.shape[1], frames[0].shape[:2]
    centre = np.arange(size) + 0.5
    rows, columns = (centre * height / size).astype(int), (centre * width / size).astype(int)
    for frame, into_SSC in zip(frames, into_TSSC, strict=True):
        into_SSC[:] = frame[rows[:, None], columns]


ResizeFunction = Callable[[FrameSequence, np.ndarray], None]
RESIZE_FUNCTIONS: dict[str, ResizeFunction] = {
    "area": resize_by_area,
    "bilinear": resize_as_pil("bilinear"),
    "bicubic": resize_as_pil("bicubic"),
    "nearest": resize_to_nearest,
}
