"""Draws the clips of one video, and cuts them out of its frames.

Data is a function of (videos, seed, epoch, position): every sample has a random generator of its
own, so batches do not depend on threads, ranks or on where a run was resumed.

A sample is made in four calls: frame numbers are drawn (:meth:`ClipSampler.draw_frames`), decoding
begins (:meth:`ClipSampler.open_frames`), crops, mirroring and colours are drawn
(:meth:`ClipSampler.draw_clips`), and clips are cut out of the decoded frames. Decoding begins
before crops are drawn because crops depend on the size of the frames.

Legend: N clips of one video, C channels, T frames of a clip, F frames of a sample, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from vidssl.augment import (
    AugmentSpec,
    Box,
    ClipDraw,
    ColourDraw,
    crop,
    crop_resize,
    draw_clip_times,
    draw_views,
)
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import LazyFrames, TrainingVideos
from vidssl.clips.temporal_sampling import clip_indices, random_start
from vidssl.views import get_view
from vidssl.views.view import NATIVE, mirrored

FRAMES_AT_ONCE = 16  # decoded, cut for all clips and freed while they are in the core's cache


@dataclass(frozen=True)
class HostSample:
    """One video's clips, made on the host.

    Attributes:
        clips: uint8 [N, C, T, H, W] per view; in memory channels come last.
        colour: for each view that is changed in colour, one draw for each of the N clips, or T.
    """

    clips: dict[str, np.ndarray]
    colour: dict[str, list[ColourDraw]]


@dataclass(frozen=True)
class FrameIndex:
    """The frame numbers of some clips of one video.

    Attributes:
        needed: the frames of all clips, each once and in ascending order [F]: a frame of two
            clips is decoded once.
        where: for every clip and time, the place of its frame in `needed` [N, T].
        repeated: how many times each clip repeats its first frame, where the clip is longer than
            the video [N].
    """

    needed: np.ndarray
    where: np.ndarray
    repeated: np.ndarray

    @classmethod
    def of(cls, times: Sequence[np.ndarray]) -> FrameIndex:
        """Returns the index for the frame numbers of every clip [T]."""
        needed, where = np.unique(np.concatenate(times), return_inverse=True)
        where = where.reshape(len(times), -1)
        return cls(needed, where, (where == where[:, :1]).sum(axis=1) - 1)


@dataclass(frozen=True)
class DrawnFrames:
    """The frame numbers that were drawn for one video's clips.

    Attributes:
        video: its number in the pack.
        views: {view: the frames of its clips}.
        window: frames of a clip, all of its blocks together.
        strong: for each clip, whether its colour may be changed.
    """

    video: int
    views: dict[str, FrameIndex]
    window: int
    strong: tuple[bool, ...]


@dataclass(frozen=True)
class DrawnView:
    """All that was drawn for one video's clips in one view.

    Attributes:
        view: its name.
        frame_index: the frames of the clips.
        draws: crop, mirroring and colours of each clip.
    """

    view: str
    frame_index: FrameIndex
    draws: list[ClipDraw]


@dataclass(frozen=True)
class DrawnClips:
    """All that was drawn for one video's clips.

    Attributes:
        video: its number in the pack.
        views: {view: what was drawn in it}.
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
        last_only: views of which only the last clip is made. That clip is the same as when all
            clips are made.
        draws: each video has so many samples in all, of which an epoch has one; 0: an epoch draws
            its own.
    """

    videos: TrainingVideos
    views: Sequence[str]
    clip: ClipSpec
    augment: AugmentSpec
    clips_per_video: int = 2
    seed: int = 0
    presentations: Mapping[str, str] = field(default_factory=dict)
    last_only: Sequence[str] = ()
    draws: int = 0

    def clips_of(self, view: str) -> int:
        """Returns how many clips of a video are made in a view."""
        return 1 if view in self.last_only else self.clips_per_video

    def shape(self, view: str) -> tuple[int, int, int, int, int]:
        """Returns [N, T, H, W, C] of a sample's clips in memory."""
        size, channels = self.clip.size, get_view(view).channels
        clips = self.clips_of(view) * self.clip.blocks
        return clips, self.clip.frames, size, size, channels

    def is_picture_of_motion(self, view: str) -> bool:
        """Whether a view's motion is changed and mirrored as the colour picture it is shown as."""
        motion = not get_view(view).colour
        shown = self.presentations.get(view, NATIVE)
        return motion and self.augment.motion_as_picture and get_view(view).is_picture(shown)

    def sample(
        self, epoch: int, position: int, row: int, into: Mapping[str, np.ndarray] | None = None
    ) -> HostSample:
        """Draws, decodes and cuts one video's clips.

        Args:
            position: within the epoch.
            row: of the training videos.
            into: memory for the pixels of each view, of the shape that `shape` returns.

        Raises:
            VidsslError: a frame is damaged.
        """
        drawn, frames = self.draw(epoch, position, row)
        clips: dict[str, np.ndarray] = {}
        for view in self.views:
            shape = self.shape(view)
            pixels_NTHWC = np.empty(shape, np.uint8) if into is None else into[view]
            # One clip here is a row of consecutive blocks to the network.
            whole = pixels_NTHWC.reshape(self.clips_of(view), -1, *shape[2:])
            self._fill(drawn.views[view], frames[view], whole)
            clips[view] = pixels_NTHWC.transpose(0, 4, 1, 2, 3)
        return HostSample(clips, self.colours(drawn))

    # ── drawing ──────────────────────────────────────────────────────────────────────────────

    def draw(
        self, epoch: int, position: int, row: int, *, for_copying: bool = False
    ) -> tuple[DrawnClips, dict[str, LazyFrames]]:
        """Draws one video's clips and begins to decode the frames they are made of.

        Args:
            position, row: as of :meth:`sample`.
            for_copying: as of :meth:`open_frames`.

        Returns:
            What was drawn, and per view the frames of `frame_index.needed`.
        """
        draw = self.generator(epoch, position, row)
        numbers = self.draw_frames(draw, row)
        frames = self.open_frames(numbers, for_copying=for_copying)
        sizes = {view: of_view.size for view, of_view in frames.items()}
        return self.draw_clips(draw, numbers, sizes), frames

    def generator(self, epoch: int, position: int, row: int) -> np.random.Generator:
        """Returns the random generator of one sample, for :meth:`draw_frames` and then
        :meth:`draw_clips`.
        """
        if self.draws:
            number = self.draw_number(epoch, position)
            return np.random.default_rng([self.seed, number, int(row), 3])
        return np.random.default_rng([self.seed, epoch, int(position), 1])

    def draw_number(self, epoch: int, position: int) -> int:
        """Returns which of a video's `draws` samples is taken, from 0."""
        chosen = np.random.default_rng([self.seed, epoch, int(position), 2])
        return int(chosen.integers(self.draws))

    def draw_frames(self, draw: np.random.Generator, row: int) -> DrawnFrames:
        """Draws the frame numbers of one video's clips.

        Args:
            row: of the training videos.
        """
        video = int(self.videos.index[row])
        clip_times = draw_clip_times(self.augment, draw, self.clips_per_video)
        times = self._times(draw, self._length(video), clip_times.one)
        every, last = FrameIndex.of(times), FrameIndex.of(times[-1:])
        views = {view: last if view in self.last_only else every for view in self.views}
        return DrawnFrames(video, views, len(times[0]), clip_times.strong)

    def open_frames(
        self, numbers: DrawnFrames, *, for_copying: bool = False
    ) -> dict[str, LazyFrames]:
        """Begins to decode the frames of every view: the first of each view is decoded.

        Args:
            for_copying: the memory of the frames may be in any order.
        """
        pictures = self.videos.reader.pictures
        return {
            view: LazyFrames(pictures(view, numbers.video, of.needed, for_copying=for_copying))
            for view, of in numbers.views.items()
        }

    def draw_clips(
        self,
        draw: np.random.Generator,
        numbers: DrawnFrames,
        sizes: Mapping[str, tuple[int, int]],
    ) -> DrawnClips:
        """Draws crop, mirroring and colours of one video's clips in every view.

        Args:
            draw: the generator that has drawn `numbers`.
            sizes: (H, W) of each view's frames.
        """
        aspects = {view: sizes[view][1] / sizes[view][0] for view in self.views}
        kinds = {view: get_view(view).kind for view in self.views}
        draws = draw_views(self.augment, draw, aspects, kinds, numbers.strong, numbers.window)
        # All clips are drawn, by one generator, also where only the last one is made.
        views = {
            view: DrawnView(view, of_view, draws[view][-self.clips_of(view) :])
            for view, of_view in numbers.views.items()
        }
        return DrawnClips(numbers.video, views)

    def colours(self, drawn: DrawnClips) -> dict[str, list[ColourDraw]]:
        """Returns by view the draws of each clip, block and, where they are per frame, frame."""
        blocks = self.clip.blocks
        # A draw for a whole clip holds for all of its blocks.
        return {
            view: [c for d in of.draws for c in d.colour * (blocks if len(d.colour) == 1 else 1)]
            for view, of in drawn.views.items()
            if get_view(view).colour or self.is_picture_of_motion(view)
        }

    def _length(self, video: int) -> int:
        # A derived view is a frame shorter, and frame numbers are shared by all views.
        return min(int(self.videos.reader.frame_count(view)[video]) for view in self.views)

    def _times(self, draw: np.random.Generator, length: int, one: bool) -> list[np.ndarray]:
        """Draws the frame numbers of every clip; `one` start for all of them, or one for each."""
        window, stride = self.clip.frames * self.clip.blocks, self.clip.stride
        count = 1 if one else self.clips_per_video
        starts = [random_start(draw, window, stride, length) for _ in range(count)]
        times = [clip_indices(start, window, stride, length) for start in starts]
        return times * self.clips_per_video if one else times

    # ── cutting ──────────────────────────────────────────────────────────────────────────────

    def _fill(self, drawn: DrawnView, frames: Iterable[np.ndarray], into_NTHWC: np.ndarray) -> None:
        """Crops, resizes and mirrors a view's frames into clips."""
        frames, boxes = choose_boxes(drawn, frames)
        index = drawn.frame_index
        for begin, run in runs(frames, FRAMES_AT_ONCE):
            for where_T, first, box, draw, into_THWC in zip(
                index.where, index.repeated, boxes, drawn.draws, into_NTHWC, strict=True
            ):
                low, high = np.searchsorted(where_T, (begin, begin + len(run)))
                low = max(low, first)
                if low < high:
                    here = [run[i - begin] for i in where_T[low:high]]
                    self._cut(drawn.view, here, box, draw.mirrored, into_THWC[low:high])
        for first, into_THWC in zip(index.repeated, into_NTHWC, strict=True):
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


def choose_boxes(
    drawn: DrawnView, frames: Iterable[np.ndarray]
) -> tuple[Iterable[np.ndarray], list[Box]]:
    """Returns the frames, and the crop of each clip.

    Where several crops were drawn for a clip, the one with the most activity is taken; to compare
    them, all frames are decoded first.
    """
    if all(len(draw.boxes) == 1 for draw in drawn.draws):
        return frames, [draw.boxes[0] for draw in drawn.draws]
    decoded, index = list(frames), drawn.frame_index
    return decoded, [
        _busiest(drawn.view, [decoded[i] for i in where_T[first:]], draw.boxes)
        for where_T, first, draw in zip(index.where, index.repeated, drawn.draws, strict=True)
    ]


def _busiest(view: str, frames: Sequence[np.ndarray], boxes: tuple[Box, ...]) -> Box:
    """Returns the box with the most activity (:meth:`vidssl.views.View.activity`)."""
    if len(boxes) == 1:
        return boxes[0]
    return max(boxes, key=lambda box: get_view(view).activity(np.stack(crop(frames, box))))


def runs(frames: Iterable[np.ndarray], most: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yields frames in lists of at most `most`, each with the number of its first frame."""
    rest, begin = iter(frames), 0
    while run := list(islice(rest, most)):
        yield begin, run
        begin += len(run)
        del run  # so that the next frames can be decoded into its memory
