"""Loads batches of clips ahead of the training loop: threads decode, the device does the rest.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from vidssl.augment import AugmentSpec
from vidssl.base.cores_and_memory import cores
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.text import counted
from vidssl.clips.batch import ClipBatch, ClipSpec
from vidssl.clips.batch_maker import BatchMaker, PendingBatch
from vidssl.clips.cpu_batches import CpuBatchMaker
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.gpu.gpu_batches import RegionBatchMaker
from vidssl.clips.gpu.nvjpeg_batches import NvjpegBatchMaker
from vidssl.clips.kept_batches import FixedPart, KeptBatchMaker
from vidssl.clips.prefetch import ahead, on_side_stream
from vidssl.clips.sampler import ClipSampler

DECODERS = ("host", "gpu")  # who decodes JPEG
DECODED_AHEAD = 2  # steps whose clips threads prepare, beside the next one


def batch_maker_class(device: torch.device, decode: str = "host") -> type[BatchMaker]:
    """Returns the class that makes batches for a device.

    Args:
        decode: who decodes JPEG, one of :data:`DECODERS`.

    Raises:
        UsageError: there is no such decoder, or the device cannot decode.
    """
    if decode not in DECODERS:
        raise UsageError(f"frames are not decoded by {decode}, but by {' or '.join(DECODERS)}")
    if device.type == "cpu":
        if decode == "gpu":
            raise UsageError("--decode gpu needs a CUDA device, and this trains on the CPU")
        return CpuBatchMaker
    return NvjpegBatchMaker if decode == "gpu" else RegionBatchMaker


class ClipLoader:
    """Loads batches of clips for one rank, on the device before the training loop asks for them.

    For a CPU the threads do all of the work, one sample at a time. For CUDA the threads decode and
    crop into pinned memory; the device does the rest, on a stream of its own.

    Args:
        videos: those to train on.
        views: names of the views every sample carries.
        augment: what is drawn for a clip, and how; its policy says what the views share.
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches in one optimiser step.
        threads: decoding threads (JPEG decoding and resizing release the GIL).
        presentations: {view: how it is shown to the network}; "native" where it is left out.
        decode: "host", or "gpu": JPEG is decoded by the CUDA device.
        last_only: views of which only a video's last clip is made.
        draws: as of :class:`~vidssl.clips.sampler.ClipSampler`.
        fixed_parts: {view: what every network computes first of it, and never learns}; with
            `draws`, on a CPU, batches have the outputs of these in place of clips.

    Raises:
        UsageError: the device cannot decode these views.
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
        draws: int = 0,
        fixed_parts: Mapping[str, FixedPart] | None = None,
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
            draws,
        )
        self.batch_size, self.accumulate, self.threads = batch_size, accumulate, threads
        self.rank, self.world_size = rank, world_size
        self.device = device or torch.device("cpu")
        maker = batch_maker_class(self.device, decode)
        self.maker: BatchMaker = (
            KeptBatchMaker(sampler, self.device, fixed_parts)
            if fixed_parts and draws and maker is CpuBatchMaker
            else maker(sampler, self.device)
        )
        self.steps_per_epoch = len(videos) // batch_size

    @property
    def sampler(self) -> ClipSampler:
        """The sampler that draws the clips."""
        return self.maker.sampler

    def steps(self, begin: int, end: int) -> Iterator[list[ClipBatch]]:
        """Yields this rank's micro-batches for every optimiser step from `begin` up to `end`.

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
        """Returns how many steps the threads prepare beside the next one.

        Where the network computes on every core, it takes turns with the decoding threads (0).
        Otherwise each of its operations would wait for the one thread that shares its core with
        a decoding thread, while its other threads spin.
        """
        takes_turns = self.device.type == "cpu" and torch.get_num_threads() >= cores()
        return 0 if takes_turns else DECODED_AHEAD

    def _begin(
        self, pool: ThreadPoolExecutor, begin: int, end: int
    ) -> Iterator[list[PendingBatch]]:
        """Hands one step's micro-batches after the other to the threads, and yields them."""
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
    """Starts decoding threads in which torch computes with one thread, and ends them at exit.

    More threads of torch's would compete with the network's. Torch keeps the number of its threads
    per thread, but a thread that starts later begins with the number that was set last in any
    thread; hence this thread's number is set again at the end.
    """
    here = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "clips", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(here)
