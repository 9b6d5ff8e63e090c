"""`vidssl flow-diff A B`: measures how much two artifacts' flow of the same videos differs.

The measure is the end-point error: the distance in pixels between the two motions of one pixel.
Both flows are converted to pixels, from any codec and map, and B's to A's working and stored size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.shards import ShardReader, open_shards
from vidssl.views.resize import resize
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

BIN = 0.001  # pixels: the resolution of quantiles
BINS = 64_000  # errors above 64 pixels share one bin
QUANTILES = (0.5, 0.9, 0.95, 0.99)
WITHIN = (0.1, 0.5, 1.0, 3.0)
CHUNK = 32  # frames that are compared at a time
WORST = 5


@dataclass(frozen=True)
class FlowDiffOptions:
    """Options of `vidssl flow-diff`.

    Attributes:
        first, second: artifacts that hold flow: NAME, NAME/vNNN, KIND/NAME/vNNN or a folder.
        every: compare one of so many frames.
    """

    first: str
    second: str
    every: int = 1


@dataclass(frozen=True)
class FlowDiff:
    """End-point errors in pixels of the first artifact's working size.

    Attributes:
        videos, frames, pixels: how many were compared.
        mean, largest: over all pixels.
        quantiles: {share: error that this share of the pixels stays below}.
        within: {error: share of the pixels with a smaller error}.
        motion: mean length of each flow, to compare the errors with.
        worst: (video, mean error), the largest first.
        notes: limits of the comparison, one sentence each.
    """

    first: str
    second: str
    videos: int
    frames: int
    pixels: int
    mean: float
    largest: float
    quantiles: dict[float, float]
    within: dict[float, float]
    motion: tuple[float, float]
    worst: list[tuple[str, float]]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain data, for --json."""
        return asdict(self)


def run(workspace: Workspace, options: FlowDiffOptions, progress: Progress = SILENT) -> FlowDiff:
    """Compares the flow of all videos that both artifacts have.

    Raises:
        VidsslError: there is no such artifact, one has no flow, or they have no video in common.
    """
    if options.every < 1:
        raise UsageError(f"--every {options.every} makes no sense: give 1 or more")
    first, second = (_find(workspace, text) for text in (options.first, options.second))
    with open_shards(first) as a, open_shards(second) as b:
        pairs = [(a.find(b.video_id(v)), v) for v in range(len(b))]
        common = [_VideoInBoth(a, b, va, vb, options.every) for va, vb in pairs if va is not None]
        if not common:
            raise VidsslError(f"{first.label} and {second.label} have no video in common")
        errors = _ErrorHistogram()
        means = []
        with progress.task("flow-diff", len(common), "video") as task:
            for pair in common:
                means.append((pair.name, errors.add(pair)))
                task.advance()
        notes = _notes(a, b, common)
    return FlowDiff(
        first=first.label,
        second=second.label,
        videos=len(common),
        frames=errors.frames,
        pixels=errors.pixels,
        mean=errors.total / errors.pixels,
        largest=errors.largest,
        quantiles={share: errors.quantile(share) for share in QUANTILES},
        within={error: errors.within(error) for error in WITHIN},
        motion=(errors.motion[0] / errors.pixels, errors.motion[1] / errors.pixels),
        worst=sorted(means, key=lambda found: -found[1])[:WORST],
        notes=notes,
    )


def _find(workspace: Workspace, text: str) -> Artifact:
    """Finds an artifact that holds flow: a flow artifact or a pack."""
    kind = "pack" if text.startswith("pack/") else "flow"
    try:
        found = workspace.resolve(kind, text)
    except VidsslError as error:
        try:
            found = workspace.resolve("pack", text)
        except VidsslError:
            raise error from None
    if "flow" not in open_shards(found).views:
        raise VidsslError(f"{found.label} holds no flow")
    return found


# ── one video ────────────────────────────────────────────────────────────────────────────────


class _VideoInBoth:
    """One video that both artifacts hold."""

    def __init__(self, a: ShardReader, b: ShardReader, va: int, vb: int, every: int) -> None:
        self.a, self.b, self.va, self.vb = a, b, va, vb
        counts = int(a.frame_count("flow")[va]), int(b.frame_count("flow")[vb])
        self.as_long = counts[0] == counts[1]
        self.frames = range(0, min(counts), every)
        self.name = a.video_id(va).rpartition("#")[0]
        self.resized = False

    def flows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields chunks of both flows, [T, H, W, 2], in pixels of the first one's working size."""
        scale = np.float32(_unit(self.a, self.va) / _unit(self.b, self.vb))
        for start in range(0, len(self.frames), CHUNK):
            chunk = self.frames[start : start + CHUNK]
            one, other = self.a.flow(self.va, chunk), scale * self.b.flow(self.vb, chunk)
            if one.shape != other.shape:
                self.resized = True
                other = np.stack([_at_size_of(one, flow) for flow in other])
            yield one, other


def _unit(reader: ShardReader, video: int) -> float:
    """Returns the short side of the frames in whose pixels the flow is measured."""
    working = reader.views["flow"].get("working_size")
    own = min(reader.videos.width[video], reader.videos.height[video])
    return float(working or own)


def _at_size_of(like_THW2: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    height, width = like_THW2.shape[1:3]
    shrinks = height <= flow_HW2.shape[0]
    return resize(flow_HW2, (width, height), cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _notes(a: ShardReader, b: ShardReader, common: list[_VideoInBoth]) -> list[str]:
    notes = []
    if missing := len(a) + len(b) - 2 * len(common):
        notes.append(f"{missing} videos are in one of them only")
    if uneven := sum(not pair.as_long for pair in common):
        notes.append(f"{uneven} videos have more frames in one of them; the rest was left out")
    if resized := sum(pair.resized for pair in common):
        notes.append(f"{resized} videos are stored at other sizes; the second was resized")
    units = [reader.views["flow"].get("working_size") for reader in (a, b)]
    if units[0] != units[1]:
        notes.append(
            f"working sizes are {units[0] or 'native'} and {units[1] or 'native'}; "
            "errors are in pixels of the first"
        )
    return notes


# ── all of them ──────────────────────────────────────────────────────────────────────────────


class _ErrorHistogram:
    """Counts errors of many pixels in bins, so that quantiles need no list of them."""

    def __init__(self) -> None:
        self.histogram: np.ndarray = np.zeros(BINS + 1, np.int64)
        self.frames = self.pixels = 0
        self.total = self.largest = 0.0
        self.motion = [0.0, 0.0]

    def add(self, pair: _VideoInBoth) -> float:
        """Adds one video and returns its mean error in pixels."""
        total, pixels = 0.0, 0
        for flows in pair.flows():
            error = np.linalg.norm(flows[0] - flows[1], axis=-1)
            places = np.minimum((error / BIN).astype(np.int64), BINS).ravel()
            self.histogram += np.bincount(places, minlength=BINS + 1)
            for which, flow in enumerate(flows):
                self.motion[which] += float(np.linalg.norm(flow, axis=-1).sum(dtype=np.float64))
            self.largest = max(self.largest, float(error.max()))
            self.frames += len(error)
            pixels += error.size
            total += float(error.sum(dtype=np.float64))
        self.pixels += pixels
        self.total += total
        return total / pixels

    def quantile(self, share: float) -> float:
        place = int(np.searchsorted(self.histogram.cumsum(), share * self.pixels))
        return min((place + 1) * BIN, self.largest)

    def within(self, error: float) -> float:
        return float(self.histogram[: round(error / BIN)].sum() / self.pixels)
