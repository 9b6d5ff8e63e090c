"""Batches ahead of the training loop: decoded by threads, then brought to the device.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import POLICIES, AugmentSpec, ColourDraw, apply_colour
from vidssl.clips import ClipBatch, ClipSampler, ClipSpec, TrainingVideos
from vidssl.errors import VidsslError
from vidssl.machine import cores
from vidssl.views import get_view
from vidssl.views.view import NATIVE
from vidssl.words import counted

DECODED_AHEAD = 2  # steps whose clips threads are at, beside the next one
SHOWN_AHEAD = 1  # steps whose batches are on a CUDA device, beside the one that trains
QUEUED_AHEAD = 2  # steps of work that the host may queue on a CUDA device

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class HostBatch:
    """A micro-batch in memory, which threads fill sample by sample.

    Attributes:
        clips: [B, N, C, T, H, W] per view: network input where the device is a CPU, else uint8.
        work: gives each sample's colour draws once its clips are in place.
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor
    work: list[Future[Mapping[str, list[ColourDraw]]]]

    def colour(self) -> dict[str, list[ColourDraw]]:
        """Waits until all clips are in place; gives the colour draws of the batch by view."""
        of_samples = [done.result() for done in self.work]
        return {view: [draw for s in of_samples for draw in s[view]] for view in of_samples[0]}


class ClipLoader:
    """Batches of clips for one rank, ready on the device when the training loop wants them.

    For a CPU the threads do all of it, one sample at a time. For CUDA they fill pinned memory with
    pixels; copies, colour and floats are done on the device, on a stream of their own.

    Args:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches in one optimiser step.
        threads: decoding threads (JPEG decoding and resizing release the GIL).
        presentations: {view: how it is shown to the network}; "native" where it is left out.

    Raises:
        VidsslError: the batch cannot be divided, there are fewer videos than a batch, or the
            shards lack a view.
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
        device: torch.device | None = None,
        presentations: Mapping[str, str] | None = None,
    ) -> None:
        if batch_size % (accumulate * world_size):
            parts = f"{counted(world_size, 'process')} of {counted(accumulate, 'micro-batch')}"
            raise VidsslError(
                f"a batch of {batch_size} cannot be divided among {parts}: "
                f"choose a multiple of {accumulate * world_size}"
            )
        if len(videos) < batch_size:
            raise VidsslError(
                f"there are {len(videos)} training videos, fewer than one batch of {batch_size}: "
                f"give --batch-size {max(1, len(videos))} or less"
            )
        for view in views:
            videos.reader.frame_count(view)
        self.sampler = ClipSampler(
            videos, list(views), clip, augment, clips_per_video, seed, dict(presentations or {})
        )
        self.batch_size, self.accumulate, self.threads = batch_size, accumulate, threads
        self.rank, self.world_size = rank, world_size
        self.device = device or torch.device("cpu")
        self.steps_per_epoch = len(videos) // batch_size

    def steps(self, begin: int, end: int) -> Iterator[list[ClipBatch]]:
        """Gives this rank's micro-batches for every optimiser step from `begin` up to `end`.

        Steps are counted from the first one of training; an epoch ends without a pause.
        """
        with _threads(self.threads) as pool:
            decoded = ahead(self._begin(pool, begin, end), self._decoded_ahead())
            if self.device.type == "cuda":
                yield from on_side_stream(decoded, self._show, self.device)
            else:
                for micro_batches in decoded:
                    yield [_as_it_is(batch) for batch in micro_batches]

    def _decoded_ahead(self) -> int:
        """Gives how many steps beside the next one threads are at.

        A network that computes on every core takes turns with them: at the same time, each of its
        operations would wait for the thread whose core is shared, and the others spin meanwhile.
        """
        takes_turns = self.device.type == "cpu" and torch.get_num_threads() >= cores()
        return 0 if takes_turns else DECODED_AHEAD

    def _begin(self, pool: ThreadPoolExecutor, begin: int, end: int) -> Iterator[list[HostBatch]]:
        """Lets the threads begin one step's micro-batches after the other."""
        share = self.batch_size // self.world_size
        order, order_of = np.empty(0, np.int64), -1
        for step in range(begin, end):
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            if epoch != order_of:
                order, order_of = self._order(epoch), epoch
            first = step_in_epoch * self.batch_size + self.rank * share
            parts = np.split(np.arange(first, first + share), self.accumulate)
            yield [self._begin_micro_batch(pool, epoch, part, order[part]) for part in parts]

    def _order(self, epoch: int) -> np.ndarray:
        """Gives the training videos in the order of an epoch."""
        generator = np.random.default_rng([self.sampler.seed, epoch])
        return generator.permutation(len(self.sampler.videos))

    def _begin_micro_batch(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> HostBatch:
        videos, on_cpu = self.sampler.videos, self.device.type == "cpu"
        empty, fill = (
            (self._empty_input, self._fill_input)
            if on_cpu
            else (self._empty_pixels, self._fill_pixels)
        )
        clips = {view: empty(view, len(rows)) for view in self.sampler.views}
        numbers = (torch.from_numpy(of[rows]) for of in (videos.source, videos.label, videos.index))
        work = [
            pool.submit(fill, {v: x[place] for v, x in clips.items()}, epoch, position, row)
            for place, (position, row) in enumerate(zip(positions, rows, strict=True))
        ]
        return HostBatch(clips, *(n if on_cpu else n.pin_memory() for n in numbers), work)

    # ── on a CPU

    def _empty_input(self, view: str, samples: int) -> Tensor:
        """Gives memory for network input, float32 [B, N, C, T, H, W].

        Channels come last in it, and where clips are compared, so do samples before clips: then
        one clip of all samples lies as networks on a CPU want it, and nothing is copied again.
        """
        clips, time, height, width, _ = self.sampler.shape(view)
        shown = self.sampler.presentations.get(view, NATIVE)
        size = (time, height, width, get_view(view).input_channels(shown))
        if self.sampler.clip.blocks > 1:
            return torch.empty(samples, clips, *size).permute(0, 1, 5, 2, 3, 4)
        return torch.empty(clips, samples, *size).permute(1, 0, 5, 2, 3, 4)

    def _fill_input(
        self, into: Mapping[str, Tensor], epoch: int, position: int, row: int
    ) -> Mapping[str, list[ColourDraw]]:
        sample = self.sampler.sample(epoch, position, row)
        for view, pixels in sample.clips.items():
            draws = sample.colour.get(view)
            into[view].copy_(self._network_input(view, torch.from_numpy(pixels), draws))
        return {}

    # ── on CUDA

    def _empty_pixels(self, view: str, samples: int) -> Tensor:
        """Gives pinned memory for pixels, uint8 [B, N, C, T, H, W]; channels last in it."""
        memory = torch.empty(samples, *self.sampler.shape(view), dtype=torch.uint8, pin_memory=True)
        return memory.permute(0, 1, 5, 2, 3, 4)

    def _fill_pixels(
        self, into: Mapping[str, Tensor], epoch: int, position: int, row: int
    ) -> Mapping[str, list[ColourDraw]]:
        memory = {view: x.permute(0, 2, 3, 4, 1).numpy() for view, x in into.items()}
        return self.sampler.sample(epoch, position, row, memory).colour

    def _show(self, batch: HostBatch) -> ClipBatch:
        """Takes a batch to the device, and makes the network's input of it there."""
        colour = batch.colour()
        clips = {}
        for view, pixels in batch.clips.items():
            there = pixels.to(self.device, non_blocking=True)
            shown = self._network_input(view, there.flatten(0, 1), colour.get(view))
            clips[view] = shown.unflatten(0, pixels.shape[:2])
        numbers = (batch.source, batch.label, batch.index)
        return ClipBatch(clips, *(n.to(self.device, non_blocking=True) for n in numbers))

    def _network_input(
        self, view: str, pixels: Tensor, draws: Sequence[ColourDraw] | None
    ) -> Tensor:
        shown = self.sampler.presentations.get(view, NATIVE)
        return network_input(pixels, view, shown, draws, self.sampler.augment)


def network_input(
    pixels_MCTHW: Tensor,
    view: str,
    presentation: str = NATIVE,
    draws: Sequence[ColourDraw] | None = None,
    augment: AugmentSpec = POLICIES["truthful"],
) -> Tensor:
    """Makes network input, float32 [M, C', T, H, W], of stored pixels, uint8 [M, C, T, H, W].

    Args:
        draws: colour changes, as of :func:`vidssl.augment.apply_colour`.
    """
    levels = get_view(view).levels(pixels_MCTHW, presentation)
    if draws:
        # One channel's values side by side, whatever lay so before: colour works on channels.
        levels = levels.to(torch.float32, memory_format=torch.contiguous_format)
        levels = apply_colour(levels, draws, augment)
    return get_view(view).normalise(levels, presentation)


def _as_it_is(batch: HostBatch) -> ClipBatch:
    batch.colour()
    return ClipBatch(batch.clips, batch.source, batch.label, batch.index)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Gives threads that compute alone: torch's own threads would take turns with the network's.

    The number of torch's threads is each thread's own, and threads that begin later start with
    the number that was set last; hence it is set again for this one.
    """
    here = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "clips", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(here)


def ahead(items: Iterable[_Item], count: int) -> Iterator[_Item]:
    """Gives the items, having fetched `count` more than were asked for."""
    rest = iter(items)
    fetched = deque(islice(rest, count))
    for item in rest:
        fetched.append(item)
        yield fetched.popleft()
    yield from fetched


def on_side_stream(
    batches: Iterable[Sequence[HostBatch]],
    show: Callable[[HostBatch], ClipBatch],
    device: torch.device,
) -> Iterator[list[ClipBatch]]:
    """Prepares batches on a stream beside the training loop's, ahead of it.

    The host waits for the device only where it is `QUEUED_AHEAD` steps ahead: going on, it would
    fill memory with batches.
    """
    side = torch.cuda.Stream(device)

    def shown() -> Iterator[tuple[list[ClipBatch], torch.cuda.Event]]:
        for batch in batches:
            with torch.cuda.stream(side):
                made = [show(micro_batch) for micro_batch in batch]
                done = side.record_event()
            yield made, done

    queued: deque[torch.cuda.Event] = deque()
    for made, done in ahead(shown(), SHOWN_AHEAD):
        loop = torch.cuda.current_stream(device)
        loop.wait_event(done)
        for batch in made:
            for tensor in (*batch.clips.values(), batch.source, batch.label, batch.index):
                tensor.record_stream(loop)  # else its memory would be taken while it is read
        yield made
        queued.append(loop.record_event())
        if len(queued) > QUEUED_AHEAD:
            queued.popleft().synchronize()
