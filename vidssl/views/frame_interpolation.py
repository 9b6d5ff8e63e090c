"""Interpolates frames of views that are stored at a stride, such as every second frame.

Legend: T frames asked for, H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

INTERPOLATION = "linear"


def stored_frame(frame: int, stride: int) -> bool:
    """Whether a view at this stride stores this frame; the blobs of other frames are empty."""
    return frame % stride == 0


def read_strided(
    frames: np.ndarray,
    stride: int,
    count: int,
    read: Callable[[np.ndarray], Iterable[np.ndarray]],
) -> np.ndarray:
    """Returns frames of a view, read or interpolated: uint8 [T, H, W, C].

    A frame between two stored ones is interpolated linearly; frames after the last stored one
    repeat it. At a stride of 2 this is CoCon's rule.

    Args:
        frames: numbers of the frames, in any order [T].
        count: how many frames the view has.
        read: returns the stored frames of some numbers, which are sorted and distinct: uint8
            [H, W, C] each.
    """
    last = (count - 1) // stride * stride
    before = [int(frame) - int(frame) % stride for frame in frames]
    after = [min(b + stride, last) if f > b else b for f, b in zip(frames, before, strict=True)]
    needed = sorted({*before, *after})
    pictures = dict(zip(needed, read(np.array(needed)), strict=True))
    return np.stack(
        [
            _between(pictures[b], pictures[a], (int(f) - b) / stride if a > b else 0.0)
            for f, b, a in zip(frames, before, after, strict=True)
        ]
    )


def _between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    if share == 0:
        return before
    return np.rint(before + share * (after.astype(np.float32) - before)).astype(np.uint8)
