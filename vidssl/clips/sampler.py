"""From packed shards to one video's clips.

Data is a function of (videos, seed, epoch, position): every sample has a random generator of its
own, so batches do not depend on threads, ranks or on where a run was resumed.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vidssl.augment import (
    AugmentSpec,
    Box,
    ClipDraw,
    ColourDraw,
    crop_resize,
    cut,
    draw_clip_times,
    draw_views,
)
from vidssl.base.errors import require
from vidssl.clips.temporal_sampling import clip_indices, random_start
from vidssl.views import get_view
from vidssl.views.view import NATIVE, mirrored

FRAMES_AT_ONCE = 16  # decoded, cut for all clips and let go while they are in the core's cache


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
            drawn apart, or consecutive blocks of one clip, by what the method needs; of a view
            whose last clip is all that it reads, N is 1.
        source: number of the group the video was cut from [B].
        label: class number, -1 where there is none [B].
        index: number of the video in its pack [B].
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor


class FrameReader(Protocol):
    """What is needed of a shard reader.

    Attributes:
        views: {view: how its frames are stored}.
    """

    @property
    def views(self) -> Mapping[str, Mapping[str, Any]]: ...

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the number of frames of every video."""

    def frame_bytes(self, view: str) -> float:
        """Returns the bytes of a view's stored frame, on average."""

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """Returns decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        Args:
            for_copying: memory may be in any order.
        """

    def read(self, view: str, video: int, indices: np.ndarray) -> list[bytes]:
        """Returns frames as they are stored, in the order asked for."""


class FrameReaderWrapper:
    """A reader of frames that hands everything on to another one; for those that change a part."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader

    @property
    def views(self) -> Mapping[str, Mapping[str, Any]]:
        """How the frames of each view are stored."""
        return self._reader.views

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the number of frames of every video."""
        return self._reader.frame_count(view)

    def frame_bytes(self, view: str) -> float:
        """Returns the bytes of a view's stored frame, on average."""
        return self._reader.frame_bytes(view)

    def read(self, view: str, video: int, indices: np.ndarray) -> list[bytes]:
        """Returns frames as they are stored, in the order asked for."""
        return self._reader.read(view, video, indices)

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """Returns decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        Args:
            for_copying: memory may be in any order.
        """
        return self._reader.pictures(view, video, indices, for_copying=for_copying)


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
class FrameIndex:
    """The frames that some clips hold.

    Attributes:
        needed: all of them, each once and in order [F]: what two clips hold is decoded once.
        where: for every clip and time, which of them it is [N, T].
        repeated: how often each clip's first frame is said again, where a clip is longer than the
            video [N].
    """

    needed: np.ndarray
    where: np.ndarray
    repeated: np.ndarray

    @classmethod
    def of(cls, times: Sequence[np.ndarray]) -> FrameIndex:
        """Takes the frame indices of every clip [T]."""
        needed, where = np.unique(np.concatenate(times), return_inverse=True)
        where = where.reshape(len(times), -1)
        return cls(needed, where, (where == where[:, :1]).sum(axis=1) - 1)


@dataclass(frozen=True)
class DrawnView:
    """What was drawn for one video's clips in one view.

    Attributes:
        held: the frames that the clips hold.
        frames: those needed, uint8 [H, W, C] each; to be gone through once.
        draws: one for each clip.
    """

    view: str
    held: FrameIndex
    frames: Iterable[np.ndarray]
    draws: list[ClipDraw]

    def boxed(self) -> tuple[Iterable[np.ndarray], list[Box]]:
        """Returns the frames, and the box of each clip."""
        if all(len(draw.boxes) == 1 for draw in self.draws):
            return self.frames, [draw.boxes[0] for draw in self.draws]
        kept, (where, repeated) = list(self.frames), (self.held.where, self.held.repeated)
        return kept, [
            _busiest(self.view, [kept[i] for i in where_T[first:]], draw.boxes)
            for where_T, first, draw in zip(where, repeated, self.draws, strict=True)
        ]


@dataclass(frozen=True)
class DrawnClips:
    """What was drawn for one video's clips.

    Attributes:
        video: its number in the pack.
        views: {view: its part}.
    """

    video: int
    views: dict[str, DrawnView]


@dataclass(frozen=True)
class ClipSampler:
    """Makes the clips of one video after another, from any thread.

    Attributes:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        presentations: {view: how it is shown to the network}; "native" where it is left out.
        last_only: views of which only the last clip is made. It is the same as if all were.
    """

    videos: TrainingVideos
    views: Sequence[str]
    clip: ClipSpec
    augment: AugmentSpec
    clips_per_video: int = 2
    seed: int = 0
    presentations: Mapping[str, str] = field(default_factory=dict)
    last_only: Sequence[str] = ()

    def clips_of(self, view: str) -> int:
        """Returns how many clips of a video are made in a view."""
        return 1 if view in self.last_only else self.clips_per_video

    def shape(self, view: str) -> tuple[int, int, int, int, int]:
        """Returns [N, T, H, W, C] of a sample's clips in memory."""
        size, channels = self.clip.size, get_view(view).channels
        clips = self.clips_of(view) * self.clip.blocks
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
        drawn = self.draw(epoch, position, row)
        clips: dict[str, np.ndarray] = {}
        for view in self.views:
            shape = self.shape(view)
            pixels_NTHWC = np.empty(shape, np.uint8) if into is None else into[view]
            # What is one clip here are consecutive blocks to the network.
            whole = pixels_NTHWC.reshape(self.clips_of(view), -1, *shape[2:])
            self._fill(drawn.views[view], whole)
            clips[view] = pixels_NTHWC.transpose(0, 4, 1, 2, 3)
        return HostSample(clips, self.colours(drawn))

    def draw(self, epoch: int, position: int, row: int, *, for_copying: bool = False) -> DrawnClips:
        """Draws one video's clips; as for :meth:`sample`.

        Args:
            for_copying: the memory of its frames may be in any order.
        """
        draw = np.random.default_rng([self.seed, epoch, int(position), 1])
        video = int(self.videos.index[row])
        moments = draw_clip_times(self.augment, draw, self.clips_per_video)
        times = self._times(draw, self._length(video), one=moments.one)
        every, last = FrameIndex.of(times), FrameIndex.of(times[-1:])
        held = {view: last if view in self.last_only else every for view in self.views}
        pictures = self.videos.reader.pictures
        rest = {
            view: iter(pictures(view, video, of_view.needed, for_copying=for_copying))
            for view, of_view in held.items()
        }
        first = {view: next(rest[view]) for view in self.views}
        aspects = {view: frame.shape[1] / frame.shape[0] for view, frame in first.items()}
        kinds = {view: get_view(view).kind for view in self.views}
        draws = draw_views(self.augment, draw, aspects, kinds, moments.strong, len(times[0]))
        return DrawnClips(
            video,
            {
                view: DrawnView(
                    view,
                    of_view,
                    chain([first[view]], rest[view]),
                    draws[view][-self.clips_of(view) :],  # all are drawn, by one generator
                )
                for view, of_view in held.items()
            },
        )

    def colours(self, drawn: DrawnClips) -> dict[str, list[ColourDraw]]:
        """Returns by view the draws of each clip, block and, where they are per frame, frame."""
        blocks = self.clip.blocks
        # What holds for a clip holds for all of its blocks.
        return {
            view: [c for d in of.draws for c in d.colour * (blocks if len(d.colour) == 1 else 1)]
            for view, of in drawn.views.items()
            if get_view(view).colour or self.is_picture_of_motion(view)
        }

    def is_picture_of_motion(self, view: str) -> bool:
        """Whether a view's motion is changed and mirrored as the colour picture it is shown as."""
        motion = not get_view(view).colour
        shown = self.presentations.get(view, NATIVE)
        return motion and self.augment.motion_as_picture and get_view(view).is_picture(shown)

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

    def _fill(self, drawn: DrawnView, into_NTHWC: np.ndarray) -> None:
        """Crops, resizes and mirrors a view's frames into clips."""
        frames, boxes = drawn.boxed()
        held = drawn.held
        for begin, run in runs(frames, FRAMES_AT_ONCE):
            for where_T, first, box, draw, into_THWC in zip(
                held.where, held.repeated, boxes, drawn.draws, into_NTHWC, strict=True
            ):
                low, high = np.searchsorted(where_T, (begin, begin + len(run)))
                low = max(low, first)
                if low < high:
                    here = [run[i - begin] for i in where_T[low:high]]
                    self._cut(drawn.view, here, box, draw.mirrored, into_THWC[low:high])
        for first, into_THWC in zip(held.repeated, into_NTHWC, strict=True):
            into_THWC[:first] = into_THWC[first]

    def _cut(
        self,
        view: str,
        frames: Sequence[np.ndarray],
        box: Box,
        mirror: bool,
        into_THWC: np.ndarray,
    ) -> None:
        crop_resize(frames, box, self.clip.size, self.augment.resize, into_THWC)
        if mirror and self.is_picture_of_motion(view):
            into_THWC[:] = mirrored(into_THWC)
        elif mirror:
            into_THWC[:] = get_view(view).flip(into_THWC)


def runs(frames: Iterable[np.ndarray], most: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Returns frames in runs of at most so many, each with the number of its first."""
    rest, begin = iter(frames), 0
    while run := list(islice(rest, most)):
        yield begin, run
        begin += len(run)
        del run  # before the next are decoded: they take its memory


def _busiest(view: str, frames: Sequence[np.ndarray], boxes: tuple[Box, ...]) -> Box:
    """Returns the box in which most happens."""
    if len(boxes) == 1:
        return boxes[0]
    return max(boxes, key=lambda box: get_view(view).activity(np.stack(cut(frames, box))))
