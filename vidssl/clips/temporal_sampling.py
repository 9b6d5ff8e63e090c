"""Chooses the frames of a clip: random starts for training, sliding windows for tests.

A clip is T frames, `stride` apart. A video that is too short is padded at the left with its first
frame; it is never dropped (the published loaders drop it; docs/methods.md).
"""

from __future__ import annotations

import numpy as np


def span(frames: int, stride: int) -> int:
    """Returns how many consecutive frames of video a clip covers."""
    return (frames - 1) * stride + 1


def clip_indices(start: int, frames: int, stride: int, length: int) -> np.ndarray:
    """Returns the frame indices [T] of the clip that begins at `start` in a video of `length`
    frames.

    Where the clip is longer than the video, it ends at the last frame, and begins with repetitions
    of the first frame.
    """
    begin = min(start, length - span(frames, stride))
    return np.maximum(begin + stride * np.arange(frames), 0)


def random_start(draw: np.random.Generator, frames: int, stride: int, length: int) -> int:
    """Draws a clip's first frame uniformly over all starts at which the clip fits (0 if none)."""
    last = length - span(frames, stride)
    return int(draw.integers(0, last + 1)) if last > 0 else 0


def window_starts(frames: int, stride: int, length: int, hop: int) -> list[int]:
    """Returns the first frames of test windows from 0, `hop` apart, that fit; at least one."""
    last = length - span(frames, stride)
    return list(range(0, max(last, 0) + 1, hop))


def published_hop(frames: int, stride: int) -> int:
    """Returns the hop of the published test protocol: 16·stride − 1 for clips of 32 frames."""
    return max(1, frames // 2 * stride - 1)
