"""Flow from the codec's motion vectors: what the encoder found out when the film was compressed.

A vector leads from a block of frame t to the place in another frame that the block is predicted
from. Divided by the frames between the two it is a speed: the block's motion from frame t - 1 to
frame t. H.264 may refer to one of several frames, and FFmpeg does not say to which. Of the speeds
that they would mean, each cell takes the one by which frame t - 1 looks most like frame t; the
nearest frame's if there is little difference.

Vectors are painted on a grid of 8 x 8 pixels, the smallest block that FFmpeg exports. Where there
are none, the motion before is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from vidssl.dataset.coded_frames import CodedFrame
from vidssl.optical_flow.referred_frames import PlacedFrame, placed_frames
from vidssl.views.resize import short_side

CELL = 8  # pixels
BLOCK_FIELDS = ("w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
NONE = np.zeros(0, np.int64)
CLEARLY = 0.8  # of another's difference, by which a farther frame's speed is taken
SLOW = 0.5  # pixels a frame: so little means the same from whatever frame
MANY_MISSING = 0.25  # share of motion without vectors that is worth a note

# hold: pairs of frames for which motion is kept where no more vectors come; then it is 0.
# median: side of the median's square, in cells.
MOTION_VECTOR_PARAMS = {"hold": 8, "median": 3}


class MotionVectorFlow:
    """Makes flow of a video's coded frames.

    Attributes:
        missing: share of the flow so far that had no vectors.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._hold, self._median = params["hold"], params["median"]
        self._cells = self._without = 0

    @property
    def missing(self) -> float:
        return self._without / max(1, self._cells)

    def flows(
        self, frames: Iterable[CodedFrame], size: int | None, stored: int | None
    ) -> Iterator[np.ndarray]:
        """Yields the flow between each frame and the next: float32 [h, w, 2], at the stored size.

        It is in pixels of the working size, and of one size in the whole video.

        Args:
            size, stored: working and stored short side, in pixels; None: the video's, the working.
        """
        shape: tuple[int, int] | None = None
        held = age = np.zeros(0)
        before: CodedFrame | None = None
        for placed in placed_frames(frames):
            last, before = before, placed.frame
            frame, shape = placed.frame, shape or placed.frame.upright_size()
            if last is None:
                continue
            speed = _speed(placed, last)
            missing = np.isnan(speed[..., 0])
            self._cells += missing.size
            self._without += int(missing.sum())
            if age.shape != missing.shape:
                held, age = np.zeros_like(speed), np.full(missing.shape, self._hold)
            age = np.where(missing, age + 1, 0)
            held = np.where(missing[..., None], held, speed)
            grid = np.where((age > self._hold)[..., None], np.float32(0), held)
            grid = _moved_back(_smooth(grid, self._median))
            yield _picture(grid, frame, shape, size, stored)


def _smooth(grid: np.ndarray, side: int) -> np.ndarray:
    """Returns the median of side x side cells, of each direction by itself."""
    if side < 2:
        return grid
    return cv2.merge([cv2.medianBlur(channel, side) for channel in cv2.split(grid)])


def _moved_back(grid: np.ndarray) -> np.ndarray:
    """Returns the motion that starts in each cell, from the motion that ends there."""
    row, column = _indices(grid.shape[:2])
    places = column + grid[..., 0] / CELL, row + grid[..., 1] / CELL
    return cv2.remap(grid, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _picture(
    grid: np.ndarray,
    frame: CodedFrame,
    shape: tuple[int, int],
    size: int | None,
    stored: int | None,
) -> np.ndarray:
    """Returns flow at the stored size, upright, from motion on the grid of the coded frame.

    Args:
        shape: (height, width) of the video's first frame, upright.
    """
    working = short_side(shape[1], shape[0], size)
    width, height = short_side(*working, stored)
    unit = 1.0 if size is None else size / min(shape)
    upright = frame.upright_size()
    scale = [unit * shape[1] / upright[1], unit * shape[0] / upright[0]]
    if frame.turns % 2:
        width, height = height, width
        scale.reverse()
    flow = _enlarged(grid * np.float32(scale), frame, (width, height))
    if frame.mirrored:
        flow = flow[:, ::-1] * np.float32([-1, 1])
    for _ in range(frame.turns):  # to the right becomes upward, downward to the right
        flow = np.rot90(np.stack([flow[..., 1], -flow[..., 0]], axis=-1))
    return np.ascontiguousarray(flow)


def _enlarged(
    grid: np.ndarray, frame: CodedFrame, size: tuple[int, int], method: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """Returns the frame's part of the grid at a size of (width, height)."""
    rows, columns = grid.shape[:2]
    if (columns * CELL, rows * CELL) == (frame.width, frame.height):
        return cv2.resize(grid, size, interpolation=method)
    x, y = frame.width / size[0] / CELL, frame.height / size[1] / CELL
    places = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5]])
    how = {"flags": method | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    return cv2.warpAffine(grid, places, size, **how)


# ── speeds


def _speed(placed: PlacedFrame, last: CodedFrame) -> np.ndarray:
    """Returns motion per frame, float32 [rows, columns, 2] on the grid; NaN where none is known.

    Args:
        last: the frame that is shown before.
    """
    frame = placed.frame
    speed = _mean(
        _likeliest(_painted(frame, -1), placed.first, last, frame),
        _likeliest(_painted(frame, 1), placed.second, last, frame),
    )
    if placed.spanned is not None and np.isnan(speed).any():
        later, distance = placed.spanned
        if (later.width, later.height) == (frame.width, frame.height):
            speed = np.where(np.isnan(speed), _painted(later, -1) / distance, speed)
    return speed


def _likeliest(
    vectors: np.ndarray, distances: Sequence[int], last: CodedFrame, frame: CodedFrame
) -> np.ndarray:
    """Returns in each cell the speed by which the last frame looks most like this one.

    Args:
        distances: over which the vectors may lead, in frames.
    """
    best = vectors / np.float32(distances[0])
    if last.luma is None or frame.luma is None or last.luma.shape != frame.luma.shape:
        return best
    if len(distances) == 1 or not np.nanmax(np.abs(best), initial=0) > SLOW:
        return best
    height, width = frame.luma.shape
    scale = np.float32([width / frame.width, height / frame.height]) / np.float32(distances[0])
    motion = np.where(np.isnan(vectors), np.float32(0), vectors) * scale
    motion = _enlarged(motion, frame, (width, height), cv2.INTER_NEAREST)
    least = _difference(motion, last.luma, frame.luma, best.shape) * np.float32(CLEARLY)
    for distance in distances[1:]:
        share = np.float32(distances[0] / distance)
        found = _difference(motion * share, last.luma, frame.luma, best.shape)
        better = found < least
        best = np.where(better[..., None], vectors / np.float32(distance), best)
        least = np.where(better, found, least)
    return best


def _difference(
    motion: np.ndarray, before: np.ndarray, after: np.ndarray, grid: Sequence[int]
) -> np.ndarray:
    """Returns how different each cell looks from where it would come from: [rows, columns].

    Args:
        motion: in pixels of the two pictures, float32 [h, w, 2].
        grid: (rows, columns, ...).
    """
    row, column = _indices(before.shape)
    places = column - motion[..., 0], row - motion[..., 1]
    moved = cv2.remap(before, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    apart = cv2.resize(cv2.absdiff(moved, after), (grid[1], grid[0]), interpolation=cv2.INTER_AREA)
    return cv2.blur(apart.astype(np.float32), (3, 3))


@lru_cache(maxsize=4)
def _indices(shape: tuple[int, int]) -> np.ndarray:
    return np.indices(shape, dtype=np.float32)


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))


def _painted(frame: CodedFrame, source: int) -> np.ndarray:
    """Returns the vectors of one list, in pixels, where their blocks are; NaN elsewhere."""
    rows, columns = -(-frame.height // CELL), -(-frame.width // CELL)
    grid = np.full((rows, columns, 2), np.nan, np.float32)
    mine = np.flatnonzero(frame.vectors["source"] * source > 0)
    if not len(mine):
        return grid
    of = {name: frame.vectors[name][mine].astype(np.int64) for name in BLOCK_FIELDS}
    scale = np.maximum(of["motion_scale"], 1)
    motion = np.stack([of["motion_x"] / scale, of["motion_y"] / scale], axis=-1)
    block, row, column = _cells(of)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    grid[row[inside], column[inside]] = motion[block[inside]]
    return grid


def _cells(of: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns every cell of every block: the block's number, the cell's row and column."""
    w, h = -(-of["w"] // CELL), -(-of["h"] // CELL)
    left, top = (of["dst_x"] - of["w"] // 2) // CELL, (of["dst_y"] - of["h"] // 2) // CELL
    blocks, rows, columns = [NONE], [NONE], [NONE]
    for y in range(h.max()):
        for x in range(w.max()):
            block = np.flatnonzero((h > y) & (w > x))
            blocks.append(block)
            rows.append(top[block] + y)
            columns.append(left[block] + x)
    return np.concatenate(blocks), np.concatenate(rows), np.concatenate(columns)
