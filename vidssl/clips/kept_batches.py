"""Makes batches for a CPU of what a network computes first and never learns, and keeps it.

Where each video has a limited number of samples, most steps need no decoding, no augmentation and
no fixed part: for a small network on a small set these take most of the time.

Legend: B samples, N clips of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from vidssl.base.cores_and_memory import free_memory
from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import BatchMaker, PendingBatch
from vidssl.clips.cpu_batches import CpuBatchMaker
from vidssl.clips.sampler import ClipSampler

MOST_BYTES = 2 << 30
SHARE_OF_FREE = 4  # at most a fourth of the free memory: other programs need some as well

Sample = dict[str, Tensor]  # {view: what its fixed part returned of the N clips}


class KeptBatchMaker(BatchMaker[Sample]):
    """Makes batches that hold the outputs of fixed parts, and clips of views that have none.

    Outputs are rounded to float16, whether they are kept or not: so the memory that is free does
    not change what is learned.

    Args:
        sampler: with a limited number of `draws`.
        fixed_parts: {view: its fixed part}.
        most: bytes of outputs to keep; None: 2 GiB, or a fourth of the free memory where that is
            less. Samples that do not fit are made anew.

    Attributes:
        bytes: size of the outputs that are kept.
    """

    def __init__(
        self,
        sampler: ClipSampler,
        device: torch.device,
        fixed_parts: Mapping[str, Callable[[Tensor], Tensor]],
        most: int | None = None,
    ) -> None:
        super().__init__(sampler, device)
        self._parts, self._clips = fixed_parts, CpuBatchMaker(sampler, device)
        free = free_memory()
        fits = MOST_BYTES if free is None else min(MOST_BYTES, free // SHARE_OF_FREE)
        self._most = fits if most is None else most
        self._kept: dict[tuple[int, int], Sample] = {}
        self._lock = Lock()
        self.bytes = 0

    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> PendingBatch[Sample]:
        samples = [
            pool.submit(self._sample, epoch, int(position), int(row))
            for position, row in zip(positions, rows, strict=True)
        ]
        return PendingBatch({}, *self.video_columns(rows), samples)

    def finish(self, pending: PendingBatch[Sample]) -> ClipBatch:
        made = [sample.result() for sample in pending.samples]
        clips = {view: torch.stack([s[view] for s in made]).float() for view in made[0]}
        return ClipBatch(clips, pending.source, pending.label, pending.index)

    def _sample(self, epoch: int, position: int, row: int) -> Sample:
        place = row, self.sampler.draw_number(epoch, position)
        kept = self._kept.get(place)
        return self._keep(place, self._make(epoch, position, row)) if kept is None else kept

    def _make(self, epoch: int, position: int, row: int) -> Sample:
        clips = self._clips.one(epoch, position, row)
        return {
            view: self._parts[view](x).half() if view in self._parts else x
            for view, x in clips.items()
        }

    def _keep(self, place: tuple[int, int], sample: Sample) -> Sample:
        # Clips themselves are a hundred times larger, and take little time to make.
        if sample.keys() == self._parts.keys():
            size = sum(x.nbytes for x in sample.values())
            with self._lock:
                if place not in self._kept and self.bytes + size <= self._most:
                    self._kept[place] = sample
                    self.bytes += size
        return sample
