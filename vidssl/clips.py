"""From packed shards to one video's clips.

Data is a function of (videos, seed, epoch, position): every sample has a random generator of its
own, so batches do not depend on threads, ranks or on where a run was resumed.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from vidssl.augment import (
    AugmentSpec,
    Box,
    ClipDraw,
    ColourDraw,
    crop_resize,
    cut,
    draw_moments,
    draw_views,
)
from vidssl.errors import require
from vidssl.sampling import clip_indices, random_start
from vidssl.views import get_view
from vidssl.views.view import NATIVE, mirrored


@dataclass(frozen=True)
class ClipSpec:
    """A clip: `frames` frames, `stride` apart, `size`×`size` pixels.

    With `blocks` above 1 it is so many of these one after another, without a gap between.
    """

    frames: int = 32
    stride: int = 1
    size: int = 128
    blocks: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(name, value, value >= 1, "at least 1")


@dataclass(frozen=True)
class ClipBatch:
    """What objectives see.

    Attributes:
        clips: network input per view, float32 [B, N, C, T, H, W]; N are clips of one video
            drawn apart, or consecutive blocks of one clip, by what the method needs.
        source: number of the group the video was cut from [B].
        label: class number, -1 where there is none [B].
        index: number of the video in its pack [B].
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor


class FrameReader(Protocol):
    """What is needed of a shard reader."""

    def frame_count(self, view: str) -> np.ndarray:
        """Gives the number of frames of every video."""

    def frame_bytes(self, view: str) -> float:
        """Gives the bytes of a view's stored frame, on average."""

    def pictures(self, view: str, video: int, indices: np.ndarray) -> Sequence[np.ndarray]:
        """Gives decoded frames, uint8 [H, W, C] each."""


@dataclass(frozen=True)
class TrainingVideos:
    """The videos that may be trained on, with what is known of them (aligned arrays)."""

    reader: FrameReader
    index: np.ndarray
    source: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class HostSample:
    """One video's clips, as stored.

    Attributes:
        clips: uint8 [N, C, T, H, W] per view; in memory channels come last.
        colour: of views that are changed in colour: for each of the N one draw, or T.
    """

    clips: dict[str, np.ndarray]
    colour: dict[str, list[ColourDraw]]


@dataclass(frozen=True)
class ClipSampler:
    """Makes the clips of one video after another, from any thread.

    Attributes:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        presentations: {view: how it is shown to the network}; "native" where it is left out.
    """

    videos: TrainingVideos
    views: Sequence[str]
    clip: ClipSpec
    augment: AugmentSpec
    clips_per_video: int = 2
    seed: int = 0
    presentations: Mapping[str, str] = field(default_factory=dict)

    def shape(self, view: str) -> tuple[int, int, int, int, int]:
        """Gives [N, T, H, W, C] of a sample's clips in memory."""
        size, channels = self.clip.size, get_view(view).channels
        clips = self.clips_per_video * self.clip.blocks
        return clips, self.clip.frames, size, size, channels

    def sample(
        self, epoch: int, position: int, row: int, into: Mapping[str, np.ndarray] | None = None
    ) -> HostSample:
        """Makes one video's clips.

        Args:
            position: within the epoch.
            row: counts within the training videos.
            into: memory for the pixels of each view, of the form `shape` gives.
        """
        draw = np.random.default_rng([self.seed, epoch, int(position), 1])
        video = int(self.videos.index[row])
        moments = draw_moments(self.augment, draw, self.clips_per_video)
        times = self._times(draw, self._length(video), one=moments.one)
        # A frame that both clips hold is decoded once.
        needed, where = np.unique(np.concatenate(times), return_inverse=True)
        where = where.reshape(len(times), -1)
        frames = {view: self.videos.reader.pictures(view, video, needed) for view in self.views}
        aspects = {view: f[0].shape[1] / f[0].shape[0] for view, f in frames.items()}
        kinds = {view: get_view(view).kind for view in self.views}
        drawn = draw_views(self.augment, draw, aspects, kinds, moments.strong, len(times[0]))
        clips: dict[str, np.ndarray] = {}
        for view, draws in drawn.items():
            shape = self.shape(view)
            pixels_NTHWC = np.empty(shape, np.uint8) if into is None else into[view]
            # What is one clip here are consecutive blocks to the network.
            whole = pixels_NTHWC.reshape(self.clips_per_video, -1, *shape[2:])
            for clip_THWC, picked, one in zip(whole, where, draws, strict=True):
                self._clip(view, frames[view], picked, one, clip_THWC)
            clips[view] = pixels_NTHWC.transpose(0, 4, 1, 2, 3)
        colour = {v: self._colours(draws) for v, draws in drawn.items() if self._coloured(v)}
        return HostSample(clips, colour)

    def _length(self, video: int) -> int:
        # A derived view is a frame shorter, and indices are shared.
        return min(int(self.videos.reader.frame_count(view)[video]) for view in self.views)

    def _times(self, draw: np.random.Generator, length: int, one: bool) -> list[np.ndarray]:
        """Draws the frame indices of every clip; `one` moment for all of them, or one for each."""
        window, stride = self.clip.frames * self.clip.blocks, self.clip.stride
        moments = 1 if one else self.clips_per_video
        starts = [random_start(draw, window, stride, length) for _ in range(moments)]
        times = [clip_indices(start, window, stride, length) for start in starts]
        return times * self.clips_per_video if one else times

    def _coloured(self, view: str) -> bool:
        """Whether a view's colour may be changed: film, and flow where it is taken for film."""
        return get_view(view).colour or self._is_picture_of_motion(view)

    def _is_picture_of_motion(self, view: str) -> bool:
        motion = not get_view(view).colour
        shown = self.presentations.get(view, NATIVE)
        return motion and self.augment.motion_as_picture and get_view(view).is_picture(shown)

    def _colours(self, draws: list[ClipDraw]) -> list[ColourDraw]:
        """Gives the draws by clip, block and, where they are drawn per frame, frame."""
        blocks = self.clip.blocks
        # What holds for a clip holds for all of its blocks.
        return [c for d in draws for c in d.colour * (blocks if len(d.colour) == 1 else 1)]

    def _clip(
        self,
        view: str,
        frames: Sequence[np.ndarray],
        where: np.ndarray,
        draw: ClipDraw,
        into: np.ndarray,
    ) -> None:
        """Crops, resizes and mirrors the frames `where` of a view into [T, H, W, C]."""
        # Where a clip is longer than the video, it begins with one frame many times.
        repeated = int(np.count_nonzero(where == where[0])) - 1
        shown = [frames[i] for i in where[repeated:]]
        box = _busiest(view, shown, draw.boxes)
        crop_resize(shown, box, self.clip.size, self.augment.resize, into[repeated:])
        if draw.mirrored and self._is_picture_of_motion(view):
            into[repeated:] = mirrored(into[repeated:])
        elif draw.mirrored:
            into[repeated:] = get_view(view).flip(into[repeated:])
        into[:repeated] = into[repeated]


def _busiest(view: str, frames: Sequence[np.ndarray], boxes: tuple[Box, ...]) -> Box:
    """Gives the box in which most happens."""
    if len(boxes) == 1:
        return boxes[0]
    return max(boxes, key=lambda box: get_view(view).activity(np.stack(cut(frames, box))))
