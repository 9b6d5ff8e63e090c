"""Computes hand-made features as baselines: histograms of colour and of flow, the mean frame.

They show how much of a result appearance alone or motion alone can reach.

Legend: V videos, T frames, H and W pixels, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from vidssl.base.cores_and_memory import cores
from vidssl.base.progress import SILENT, Progress
from vidssl.shards import ShardReader
from vidssl.views.flow import to_pixels

FRAMES_LOOKED_AT = 16
COLOUR_BINS = 8
MEAN_FRAME_SIDE = 16
DIRECTIONS, SLOW, CELLS = 8, 0.5, 3


def colour_histogram(frames_THWC: np.ndarray) -> np.ndarray:
    """Returns the joint RGB histogram, 8 bins a channel, as shares: float32 [512]."""
    level: np.ndarray = frames_THWC.reshape(-1, 3).astype(np.int64) * COLOUR_BINS // 256
    code = (level[:, 0] * COLOUR_BINS + level[:, 1]) * COLOUR_BINS + level[:, 2]
    return (np.bincount(code, minlength=COLOUR_BINS**3) / len(code)).astype(np.float32)


def mean_frame(frames_THWC: np.ndarray) -> np.ndarray:
    """Returns the mean over time, shrunk to 16×16 pixels: float32 [768]."""
    mean = frames_THWC.astype(np.float32).mean(0)
    side = (MEAN_FRAME_SIDE, MEAN_FRAME_SIDE)
    return cv2.resize(mean, side, interpolation=cv2.INTER_AREA).reshape(-1)


def flow_histogram(flow_THW2: np.ndarray) -> np.ndarray:
    """Returns a histogram of motion: 8 directions and "slow", in each of 3×3 cells: float32 [81].

    Each pixel is weighted by its speed, as in histograms of optical flow (Laptev et al. 2008). The
    sum of all bins is 1.

    Args:
        flow_THW2: in pixels; a pixel that moves less than half a pixel counts as slow.
    """
    u, v = flow_THW2[..., 0], flow_THW2[..., 1]
    speed = np.hypot(u, v)
    turn = np.floor((np.arctan2(v, u) / (2 * np.pi) + 0.5) * DIRECTIONS).astype(np.int64)
    code = np.where(speed < SLOW, DIRECTIONS, turn % DIRECTIONS)
    cells = [
        np.bincount(c.reshape(-1), s.reshape(-1), minlength=DIRECTIONS + 1)
        for c, s in zip(_cells(code), _cells(speed), strict=True)
    ]
    moved = np.concatenate(cells)
    return (moved / max(moved.sum(), 1e-6)).astype(np.float32)


def _cells(values_THW: np.ndarray) -> list[np.ndarray]:
    """Returns the 3×3 cells of frames."""
    return [
        cell
        for rows in np.array_split(values_THW, CELLS, axis=1)
        for cell in np.array_split(rows, CELLS, axis=2)
    ]


@dataclass(frozen=True)
class HandMade:
    """One hand-made feature.

    Attributes:
        view: that it is computed from.
        describe: a function from frames of the view [T, H, W, C] to the feature [F].
        in_pixels: whether `describe` takes flow in pixels, not as stored.
    """

    view: str
    describe: Callable[[np.ndarray], np.ndarray]
    in_pixels: bool = False


HAND_MADE: dict[str, HandMade] = {
    "colour-histogram": HandMade("rgb", colour_histogram),
    "mean-frame": HandMade("rgb", mean_frame),
    "flow-histogram": HandMade("flow", flow_histogram, in_pixels=True),
}


def hand_made_features(reader: ShardReader, name: str, progress: Progress = SILENT) -> np.ndarray:
    """Computes a hand-made feature of each video of a pack, from 16 frames each: float32 [V, F]."""
    made = HAND_MADE[name]
    lengths = reader.frame_count(made.view)
    bound = float(reader.views[made.view].get("bound", 1.0))

    def one(video: int) -> np.ndarray:
        count = min(FRAMES_LOOKED_AT, int(lengths[video]))
        shown = np.linspace(0, int(lengths[video]) - 1, count).round().astype(int)
        frames = reader.frames(made.view, video, shown)
        return made.describe(to_pixels(frames, bound) if made.in_pixels else frames)

    rows = []
    with (
        ThreadPoolExecutor(min(16, cores())) as pool,
        progress.task(name, len(reader), "video") as task,
    ):
        for row in pool.map(one, range(len(reader))):
            rows.append(row)
            task.advance()
    return np.stack(rows)
