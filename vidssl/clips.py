"""From packed shards to batches of clips.

Data is a function of (videos, seed, epoch, position): every sample has a random generator of its
own, so batches do not depend on threads, ranks or on where a run was resumed.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import (
    POLICIES,
    AugmentSpec,
    Box,
    ClipDraw,
    ColourDraw,
    apply_colour,
    crop_resize,
    cut,
    draw_moments,
    draw_views,
)
from vidssl.errors import VidsslError
from vidssl.sampling import clip_indices, random_start
from vidssl.views import get_view
from vidssl.views.view import NATIVE

BATCHES_AHEAD = 3


@dataclass(frozen=True)
class ClipSpec:
    """A clip: `frames` frames, `stride` apart, `size`×`size` pixels.

    With `blocks` above 1 it is so many of these one after another, without a gap between.
    """

    frames: int = 32
    stride: int = 1
    size: int = 128
    blocks: int = 1


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

    def frames(self, view: str, video: int, indices: np.ndarray) -> np.ndarray:
        """Gives decoded frames, uint8 [len(indices), H, W, C]."""


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
    """One video's clips: uint8 [N, C, T, H, W] per view.

    Attributes:
        colour: of views that are changed in colour: for each of the N one draw, or T.
    """

    clips: dict[str, np.ndarray]
    colour: dict[str, list[ColourDraw]]
    row: int


@dataclass(frozen=True)
class HostBatch:
    """A batch before it goes to the device: uint8 [B, N, C, T, H, W] per view."""

    clips: dict[str, Tensor]
    colour: dict[str, list[ColourDraw]]
    source: Tensor
    label: Tensor
    index: Tensor


class ClipLoader:
    """Batches of clips for one rank, decoded by threads ahead of the training loop.

    Args:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches in one optimiser step.
        threads: decoding threads (JPEG decoding and resizing release the GIL).
        presentations: {view: how it is shown to the network}; "native" where it is left out.

    Raises:
        VidsslError: the batch cannot be divided, or there are fewer videos than a batch.
    """

    def __init__(
        self,
        videos: TrainingVideos,
        views: Sequence[str],
        clip: ClipSpec,
        augment: AugmentSpec,
        batch_size: int,
        *,
        clips_per_video: int = 2,
        seed: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 2,
        pin: bool = False,
        presentations: Mapping[str, str] | None = None,
    ) -> None:
        if batch_size % (accumulate * world_size):
            raise VidsslError(
                f"a batch of {batch_size} cannot be divided among {world_size} processes "
                f"of {accumulate} micro-batches: choose a multiple of {accumulate * world_size}"
            )
        if len(videos) < batch_size:
            raise VidsslError(
                f"there are {len(videos)} training videos, fewer than one batch of {batch_size}: "
                f"give --batch-size {max(1, len(videos))} or less"
            )
        self.videos, self.views, self.clip, self.augment = videos, list(views), clip, augment
        self.batch_size, self.accumulate, self.seed = batch_size, accumulate, seed
        self.clips_per_video, self.rank, self.world_size = clips_per_video, rank, world_size
        self.threads, self.pin = threads, pin
        self.presentations = dict(presentations or {})
        self.steps_per_epoch = len(videos) // batch_size
        counts = np.stack([videos.reader.frame_count(view) for view in self.views])
        self._length = counts.min(axis=0)  # a derived view is a frame shorter: indices are shared

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[HostBatch]]:
        """Gives, for every optimiser step from `first_step`, this rank's micro-batches."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.videos))
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="clips")
        pending: list[list[Future[HostSample]]] = []
        try:
            for step in range(first_step, self.steps_per_epoch + BATCHES_AHEAD):
                if step < self.steps_per_epoch:
                    positions = self._positions(step)
                    pending.append(
                        [pool.submit(self.sample, epoch, p, order[p]) for p in positions]
                    )
                if len(pending) > BATCHES_AHEAD or step >= self.steps_per_epoch:
                    if not pending:
                        break
                    yield self._micro_batches([f.result() for f in pending.pop(0)])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def present(self, batch: HostBatch, device: torch.device) -> ClipBatch:
        """Makes the network's input of a micro-batch, on the device."""
        return present(batch, device, self.presentations, self.augment)

    def _positions(self, step: int) -> np.ndarray:
        share = self.batch_size // self.world_size
        begin = step * self.batch_size + self.rank * share
        return np.arange(begin, begin + share)

    def sample(self, epoch: int, position: int, row: int) -> HostSample:
        """Makes one video's clips; `row` counts within the training videos."""
        draw = np.random.default_rng([self.seed, epoch, int(position), 1])
        video = int(self.videos.index[row])
        moments = draw_moments(self.augment, draw, self.clips_per_video)
        times = self._times(draw, int(self._length[video]), one=moments.one)
        # A frame that both clips hold is decoded once.
        needed, where = np.unique(np.concatenate(times), return_inverse=True)
        where = where.reshape(len(times), -1)
        frames = {view: self.videos.reader.frames(view, video, needed) for view in self.views}
        aspects = {view: f.shape[2] / f.shape[1] for view, f in frames.items()}
        films = [view for view in self.views if get_view(view).colour]
        drawn = draw_views(self.augment, draw, aspects, films, moments.strong, len(times[0]))
        clips: dict[str, np.ndarray] = {}
        for view, draws in drawn.items():
            shown = [self._clip(view, frames[view], *one) for one in zip(where, draws, strict=True)]
            clips[view] = np.concatenate([self._blocks(clip) for clip in shown])
        colour = {v: self._colours(draws) for v, draws in drawn.items() if self._coloured(v)}
        return HostSample(clips, colour, row)

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

    def _blocks(self, clip_CTHW: np.ndarray) -> np.ndarray:
        """Cuts a clip of N·T frames into its blocks [N, C, T, H, W]."""
        return np.stack(np.split(clip_CTHW, self.clip.blocks, axis=1))

    def _clip(self, view: str, frames: np.ndarray, where: np.ndarray, draw: ClipDraw) -> np.ndarray:
        first, back = np.unique(where, return_inverse=True)  # padding repeats the first frame
        box = _busiest(view, frames[first], draw.boxes)
        cropped = crop_resize(frames[first], box, self.clip.size, self.augment.resize)
        if draw.mirrored and self._is_picture_of_motion(view):
            cropped = cropped[:, :, ::-1]
        elif draw.mirrored:
            cropped = get_view(view).flip(cropped)
        return cropped[back].transpose(3, 0, 1, 2)

    def _micro_batches(self, samples: list[HostSample]) -> list[HostBatch]:
        share = len(samples) // self.accumulate
        return [self._collate(samples[i * share : (i + 1) * share]) for i in range(self.accumulate)]

    def _collate(self, samples: list[HostSample]) -> HostBatch:
        rows = np.array([s.row for s in samples])
        clips = {v: torch.from_numpy(np.stack([s.clips[v] for s in samples])) for v in self.views}
        if self.pin:
            clips = {view: x.pin_memory() for view, x in clips.items()}
        return HostBatch(
            clips=clips,
            colour={v: [c for s in samples for c in s.colour[v]] for v in samples[0].colour},
            source=torch.from_numpy(self.videos.source[rows]),
            label=torch.from_numpy(self.videos.label[rows]),
            index=torch.from_numpy(self.videos.index[rows]),
        )


def _busiest(view: str, frames: np.ndarray, boxes: tuple[Box, ...]) -> Box:
    """Gives the box in which most happens."""
    if len(boxes) == 1:
        return boxes[0]
    return max(boxes, key=lambda box: get_view(view).activity(cut(frames, box)))


def present(
    batch: HostBatch,
    device: torch.device,
    presentations: Mapping[str, str] | None = None,
    augment: AugmentSpec = POLICIES["truthful"],
) -> ClipBatch:
    """Takes a batch to the device and makes the network's input of it: colour, then floats."""
    clips = {}
    for name, pixels in batch.clips.items():
        view, shown = get_view(name), (presentations or {}).get(name, NATIVE)
        x = view.levels(pixels.to(device, non_blocking=True), shown)
        if name in batch.colour:
            x = x.to(torch.float32)
            x = apply_colour(x.flatten(0, 1), batch.colour[name], augment).view(x.shape)
        clips[name] = view.normalise(x, shown)
    return ClipBatch(
        clips=clips,
        source=batch.source.to(device, non_blocking=True),
        label=batch.label.to(device, non_blocking=True),
        index=batch.index.to(device, non_blocking=True),
    )
