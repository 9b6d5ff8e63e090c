"""Makes batches for a GPU: threads decode and crop; the device resizes, mirrors, colours, scales.

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
from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import BatchMaker, PendingBatch, Prepared, join_by_view
from vidssl.clips.gpu.crop_regions import Region, cut_regions
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.gpu.transform_choice import choose_transforms

Colours = dict[str, list[ColourDraw]]
RegionSample = tuple[dict[str, list[Region]], Colours]


class GpuBatchMaker(BatchMaker[Prepared]):
    """What batch makers share whose device makes clips of regions."""

    @cached_property
    def transforms(self) -> TorchTransforms:
        """Makes network input of regions; chosen when the first batch is made."""
        return choose_transforms(self.sampler, self.device)

    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> PendingBatch[Prepared]:
        samples = [
            pool.submit(self._prepare, epoch, position, row)
            for position, row in zip(positions, rows, strict=True)
        ]
        return PendingBatch({}, *self.video_columns(rows), samples)

    @abstractmethod
    def _prepare(self, epoch: int, position: int, row: int) -> Prepared:
        """Prepares one sample in a thread; arguments as of
        :meth:`vidssl.clips.sampler.ClipSampler.sample`.
        """

    def batch_of_regions(
        self,
        pending: PendingBatch[Prepared],
        regions: Mapping[str, Sequence[Region]],
        colours: Colours,
    ) -> ClipBatch:
        """Returns the batch on the device.

        Args:
            regions: per view those of all samples, on the device.
            colours: as of :meth:`vidssl.clips.sampler.ClipSampler.colours`, of all samples.
        """
        clips = {
            view: self.transforms(view, of_view, colours.get(view))
            for view, of_view in regions.items()
        }
        columns = (pending.source, pending.label, pending.index)
        return ClipBatch(clips, *(x.to(self.device, non_blocking=True) for x in columns))


class RegionBatchMaker(GpuBatchMaker[RegionSample]):
    """Makes batches of regions that threads cut out of the frames they decoded."""

    def finish(self, pending: PendingBatch[RegionSample]) -> ClipBatch:
        regions, colours = zip(*(sample.result() for sample in pending.samples), strict=True)
        on_device = {
            view: [self._to_device(region) for region in of_view]
            for view, of_view in join_by_view(regions).items()
        }
        return self.batch_of_regions(pending, on_device, join_by_view(colours))

    def _prepare(self, epoch: int, position: int, row: int) -> RegionSample:
        drawn, frames = self.sampler.draw(epoch, position, row, for_copying=True)
        # Torch reuses pinned memory once the copy to the device is done.
        memory = partial(torch.empty, pin_memory=self.device.type == "cuda")
        regions = {
            view: cut_regions(of_view, frames[view], memory)
            for view, of_view in drawn.views.items()
        }
        return regions, self.sampler.colours(drawn)

    def _to_device(self, region: Region) -> Region:
        pixels: Tensor = region.pixels.to(self.device, non_blocking=True)
        return Region(pixels, region.repeated, region.mirrored)
