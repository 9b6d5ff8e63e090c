"""Resizes frames of any number of channels, and computes the size for a given short side."""

from __future__ import annotations

import cv2
import numpy as np

MOST_CHANNELS = 4  # OpenCV resizes no more at once


def short_side(width: int, height: int, size: int | None) -> tuple[int, int]:
    """Returns (width, height) scaled so that the short side is at most `size`; never enlarged.

    A `size` of None returns the size unchanged.
    """
    short = min(width, height)
    if size is None or short <= size:
        return width, height
    return max(1, round(width * size / short)), max(1, round(height * size / short))


def resize(
    frame_HWC: np.ndarray,
    size: tuple[int, int],
    method: int = cv2.INTER_AREA,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes a frame of any number of channels to (width, height): [H, W, C] → [h, w, C].

    Args:
        method: OpenCV's interpolation; area does not alias when it shrinks.
        into: contiguous array for the result.
    """
    if into is not None:
        return _resize_into(into, frame_HWC, size, method)
    width, height = size
    if size == frame_HWC.shape[1::-1]:
        return frame_HWC
    channels = frame_HWC.shape[2]
    if channels <= MOST_CHANNELS:
        return cv2.resize(frame_HWC, size, interpolation=method).reshape(height, width, channels)
    groups = np.split(frame_HWC, range(MOST_CHANNELS, channels, MOST_CHANNELS), axis=2)
    return np.concatenate(
        [resize(np.ascontiguousarray(group), size, method) for group in groups], axis=2
    )


def _resize_into(
    into: np.ndarray, frame_HWC: np.ndarray, size: tuple[int, int], method: int
) -> np.ndarray:
    if size == frame_HWC.shape[1::-1] or frame_HWC.shape[2] > MOST_CHANNELS:
        into[:] = resize(frame_HWC, size, method)
    else:
        cv2.resize(frame_HWC, size, dst=into, interpolation=method)
    return into
