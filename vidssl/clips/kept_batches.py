"""Makes batches for a CPU of what a network computes first and never learns, and keeps it.

Where each video has a limited number of samples, most steps need no decoding, no augmentation and
no fixed part: for a small network on a small set these take most of the time.

Legend: B samples, N clips of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidssl.base.cores_and_memory import free_memory
from vidssl.base.kept_arrays import Keeper, KeptArrays
from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import BatchMaker, PendingBatch
from vidssl.clips.cpu_batches import CpuBatchMaker
from vidssl.clips.sampler import ClipSampler
from vidssl.views import get_view
from vidssl.views.view import NATIVE

MOST_BYTES = 2 << 30
SHARE_OF_FREE = 4  # at most a fourth of the free memory: other programs need some as well

Sample = dict[str, Tensor]  # {view: what its fixed part returned of the N clips}


@dataclass(frozen=True)
class FixedPart:
    """What every network computes first of a view's clips, and never learns.

    Attributes:
        compute: clips [N, C, T, H, W] → outputs [N, ...].
        keeper: opens the file of its outputs; None: they are kept in memory.
    """

    compute: Callable[[Tensor], Tensor]
    keeper: Keeper | None = None


class KeptBatchMaker(BatchMaker[Sample]):
    """Makes batches that hold the outputs of fixed parts, and clips of views that have none.

    Outputs are rounded to float16, whether they are kept or not: so the memory that is free does
    not change what is learned.

    They are kept in a file where the parts have a keeper: the next training with the same samples
    finds them. Without one, or where the disk has no room, they are kept in memory.

    Args:
        sampler: with a limited number of `draws`.
        fixed_parts: {view: its fixed part}.
        most: bytes of outputs to keep in memory; None: 2 GiB, or a fourth of the free memory where
            that is less. Samples that do not fit are made anew.

    Attributes:
        bytes: size of the outputs that are kept in memory.
    """

    def __init__(
        self,
        sampler: ClipSampler,
        device: torch.device,
        fixed_parts: Mapping[str, FixedPart],
        most: int | None = None,
    ) -> None:
        super().__init__(sampler, device)
        self._parts = {view: fixed_parts[view] for view in sampler.views if view in fixed_parts}
        self._clips = CpuBatchMaker(sampler, device)
        free = free_memory()
        fits = MOST_BYTES if free is None else min(MOST_BYTES, free // SHARE_OF_FREE)
        self._most = fits if most is None else most
        self._kept: dict[tuple[int, int], Sample] = {}
        self._files = self._open_files() if set(self._parts) == set(sampler.views) else {}
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
        kept = self._read(place) if self._files else self._kept.get(place)
        return self._keep(place, self._make(epoch, position, row)) if kept is None else kept

    def _open_files(self) -> dict[str, KeptArrays]:
        """Opens the file of each view; returns none of them where one cannot be opened."""
        of = _all_that_samples_depend_on(self.sampler)
        count = len(self.sampler.videos) * self.sampler.draws
        found = {}
        for view, part in self._parts.items():
            if part.keeper is None:
                return {}
            pixels = np.zeros(self.sampler.shape(view), np.uint8).transpose(0, 4, 1, 2, 3)
            shown = self.sampler.presentations.get(view, NATIVE)
            clip = get_view(view).present(torch.from_numpy(pixels), shown)
            shape = part.compute(clip).shape
            file = part.keeper.open_arrays({**of, "view": view}, count, shape, "<f2")
            if file is None:
                return {}
            found[view] = file
        return found

    def _read(self, place: tuple[int, int]) -> Sample | None:
        row, draw = place
        found = {
            view: file.get(row * self.sampler.draws + draw) for view, file in self._files.items()
        }
        kept = {view: torch.from_numpy(x.copy()) for view, x in found.items() if x is not None}
        return kept if len(kept) == len(found) else self._kept.get(place)

    def _make(self, epoch: int, position: int, row: int) -> Sample:
        clips = self._clips.one(epoch, position, row)
        return {
            view: self._parts[view].compute(x).half() if view in self._parts else x
            for view, x in clips.items()
        }

    def _keep(self, place: tuple[int, int], sample: Sample) -> Sample:
        row, draw = place
        number = row * self.sampler.draws + draw
        if self._files and all(f.put(number, sample[v].numpy()) for v, f in self._files.items()):
            return sample
        # Clips themselves are a hundred times larger, and take little time to make.
        if sample.keys() == self._parts.keys():
            size = sum(x.nbytes for x in sample.values())
            with self._lock:
                if place not in self._kept and self.bytes + size <= self._most:
                    self._kept[place] = sample
                    self.bytes += size
        return sample


def _all_that_samples_depend_on(sampler: ClipSampler) -> dict[str, Any]:
    """Returns what, beside the pack, decides the clips of a row's samples, as plain data."""
    return {
        "videos": sampler.videos.index.tolist(),
        "seed": sampler.seed,
        "draws": sampler.draws,
        "clip": asdict(sampler.clip),
        "clips": sampler.clips_per_video,
        "augment": asdict(sampler.augment),
        "views": list(sampler.views),
        "last_only": list(sampler.last_only),
        "shown": {view: sampler.presentations.get(view, NATIVE) for view in sampler.views},
    }
