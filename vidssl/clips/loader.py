"""Batches ahead of the training loop: decoded by threads, then brought to the device.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from vidssl.augment import AugmentSpec
from vidssl.base.errors import VidsslError
from vidssl.base.resources import cores
from vidssl.base.text import counted
from vidssl.clips.decoders import Pending, batch_maker
from vidssl.clips.sampler import (
    ClipBatch,
    ClipSampler,
    ClipSpec,
    TrainingVideos,
)

DECODED_AHEAD = 2  # steps whose clips threads are at, beside the next one
SHOWN_AHEAD = 1  # steps whose batches are on a CUDA device, beside the one that trains
QUEUED_AHEAD = 2  # steps of work that the host may queue on a CUDA device

_Item = TypeVar("_Item")


class ClipLoader:
    """Batches of clips for one rank, ready on the device when the training loop wants them.

    For a CPU the threads do all of it, one sample at a time. For CUDA they put what clips cover of
    the frames into pinned memory; the rest is done on the device, on a stream of its own.

    Args:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches in one optimiser step.
        threads: decoding threads (JPEG decoding and resizing release the GIL).
        presentations: {view: how it is shown to the network}; "native" where it is left out.
        decode: "host", or "gpu": JPEG is decoded by the CUDA device.
        last_only: views of which only a video's last clip is wanted.

    Raises:
        UsageError: the device cannot decode what is wanted.
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
        decode: str = "host",
        last_only: Sequence[str] = (),
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
        sampler = ClipSampler(
            videos,
            list(views),
            clip,
            augment,
            clips_per_video,
            seed,
            dict(presentations or {}),
            tuple(last_only),
        )
        self.batch_size, self.accumulate, self.threads = batch_size, accumulate, threads
        self.rank, self.world_size = rank, world_size
        self.device = device or torch.device("cpu")
        self.maker = batch_maker(self.device, decode)(sampler, self.device)
        self.steps_per_epoch = len(videos) // batch_size

    @property
    def sampler(self) -> ClipSampler:
        """What draws the clips."""
        return self.maker.sampler

    def steps(self, begin: int, end: int) -> Iterator[list[ClipBatch]]:
        """Returns this rank's micro-batches for every optimiser step from `begin` up to `end`.

        Steps are counted from the first one of training; an epoch ends without a pause.
        """
        with _threads(self.threads) as pool:
            decoded = ahead(self._begin(pool, begin, end), self._decoded_ahead())
            if self.device.type == "cuda":
                yield from on_side_stream(decoded, self.maker.finish, self.device)
            else:
                for micro_batches in decoded:
                    yield [self.maker.finish(batch) for batch in micro_batches]

    def _decoded_ahead(self) -> int:
        """Returns how many steps beside the next one threads are at.

        A network that computes on every core takes turns with them: at the same time, each of its
        operations would wait for the thread whose core is shared, and the others spin meanwhile.
        """
        takes_turns = self.device.type == "cpu" and torch.get_num_threads() >= cores()
        return 0 if takes_turns else DECODED_AHEAD

    def _begin(self, pool: ThreadPoolExecutor, begin: int, end: int) -> Iterator[list[Pending]]:
        """Lets the threads begin one step's micro-batches after the other."""
        share = self.batch_size // self.world_size
        order, order_of = np.empty(0, np.int64), -1
        for step in range(begin, end):
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            if epoch != order_of:
                order, order_of = self._order(epoch), epoch
            first = step_in_epoch * self.batch_size + self.rank * share
            parts = np.split(np.arange(first, first + share), self.accumulate)
            yield [self.maker.begin(pool, epoch, part, order[part]) for part in parts]

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the training videos in the order of an epoch."""
        generator = np.random.default_rng([self.sampler.seed, epoch])
        return generator.permutation(len(self.sampler.videos))


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Returns threads that compute alone: torch's own threads would take turns with the network's.

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
    """Returns the items, having fetched `count` more than were asked for."""
    rest = iter(items)
    fetched = deque(islice(rest, count))
    for item in rest:
        fetched.append(item)
        yield fetched.popleft()
    yield from fetched


def on_side_stream(
    batches: Iterable[Sequence[Pending]],
    finish: Callable[[Pending], ClipBatch],
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
                made = [finish(micro_batch) for micro_batch in batch]
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
