"""Batches for a GPU: threads decode and cut, the device resizes, mirrors, colours and scales.

Legend: B samples, N clips of one video, C channels, T frames, S pixels of a clip's side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import ColourDraw
from vidssl.clips.batch_maker import (
    BatchMaker,
    Pending,
    Work,
    by_view,
)
from vidssl.clips.gpu.crop_regions import Region, cut_regions
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.gpu.transform_choice import fastest
from vidssl.clips.sampler import ClipBatch

Colours = dict[str, list[ColourDraw]]


class OnDevice(BatchMaker[Work]):
    """What makers have in common that make clips of regions on the device."""

    @cached_property
    def way(self) -> TorchTransforms:
        """How network input is made of regions; found when the first batch is."""
        return fastest(self.sampler, self.device)

    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> Pending[Work]:
        work = [
            pool.submit(self._sample, epoch, position, row)
            for position, row in zip(positions, rows, strict=True)
        ]
        return Pending({}, *self.numbers(rows), work)

    @abstractmethod
    def _sample(self, epoch: int, position: int, row: int) -> Work:
        """Does a thread's part of one sample; as for
        :meth:`vidssl.clips.sampler.ClipSampler.draw`.
        """

    def put_together(
        self, pending: Pending[Work], regions: Mapping[str, Sequence[Region]], colours: Colours
    ) -> ClipBatch:
        """Returns the batch.

        Args:
            regions: per view those of all samples, on the device.
            colours: as of :meth:`vidssl.clips.sampler.ClipSampler.colours`, of all samples.
        """
        clips = {
            view: self.way(view, of_view, colours.get(view)) for view, of_view in regions.items()
        }
        numbers = (pending.source, pending.label, pending.index)
        return ClipBatch(clips, *(n.to(self.device, non_blocking=True) for n in numbers))


class FromRegions(OnDevice[tuple[dict[str, list[Region]], Colours]]):
    """Makes batches of regions that threads cut out of the frames they decoded."""

    def finish(self, pending: Pending[tuple[dict[str, list[Region]], Colours]]) -> ClipBatch:
        regions, colours = zip(*(done.result() for done in pending.work), strict=True)
        there = {
            view: [self._there(region) for region in of_view]
            for view, of_view in by_view(regions).items()
        }
        return self.put_together(pending, there, by_view(colours))

    def _sample(
        self, epoch: int, position: int, row: int
    ) -> tuple[dict[str, list[Region]], Colours]:
        drawn = self.sampler.draw(epoch, position, row, for_copying=True)
        # Pinned memory is kept and given out again by torch, once the copy out of it is done.
        memory = partial(torch.empty, pin_memory=self.device.type == "cuda")
        regions = {view: cut_regions(part, memory) for view, part in drawn.views.items()}
        return regions, self.sampler.colours(drawn)

    def _there(self, region: Region) -> Region:
        pixels: Tensor = region.pixels.to(self.device, non_blocking=True)
        return Region(pixels, region.repeated, region.mirrored)
