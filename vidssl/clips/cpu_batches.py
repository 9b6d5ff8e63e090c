"""Makes batches for a CPU: threads do all of the work, one sample at a time.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import ColourDraw
from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import BatchMaker, PendingBatch
from vidssl.clips.network_input import network_input
from vidssl.views import get_view
from vidssl.views.view import NATIVE


class CpuBatchMaker(BatchMaker[None]):
    """Makes batches in host memory; a thread writes a sample's network input into its batch."""

    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> PendingBatch[None]:
        clips = {view: self._memory(view, len(rows)) for view in self.sampler.views}
        samples = [
            pool.submit(self._fill, {v: x[place] for v, x in clips.items()}, epoch, position, row)
            for place, (position, row) in enumerate(zip(positions, rows, strict=True))
        ]
        return PendingBatch(clips, *self.video_columns(rows), samples)

    def finish(self, pending: PendingBatch[None]) -> ClipBatch:
        for sample in pending.samples:
            sample.result()
        return ClipBatch(pending.clips, pending.source, pending.label, pending.index)

    def _memory(self, view: str, samples: int) -> Tensor:
        """Returns memory for network input, float32 [B, N, C, T, H, W].

        In memory channels come last; and for methods that compare clips, clips come before
        samples. One clip of all samples is then contiguous in the order that networks on a CPU
        prefer, and is not copied again.
        """
        clips, time, height, width, _ = self.sampler.shape(view)
        shown = self.sampler.presentations.get(view, NATIVE)
        size = (time, height, width, get_view(view).input_channels(shown))
        if self.sampler.clip.blocks > 1:
            return torch.empty(samples, clips, *size).permute(0, 1, 5, 2, 3, 4)
        return torch.empty(clips, samples, *size).permute(1, 0, 5, 2, 3, 4)

    def one(self, epoch: int, position: int, row: int) -> dict[str, Tensor]:
        """Returns the network input of one sample, by view: float32 [N, C, T, H, W]."""
        sample = self.sampler.sample(epoch, position, row)
        return {
            view: self._present(view, torch.from_numpy(pixels), sample.colour.get(view))
            for view, pixels in sample.clips.items()
        }

    def _fill(self, into: Mapping[str, Tensor], epoch: int, position: int, row: int) -> None:
        for view, made in self.one(epoch, position, row).items():
            into[view].copy_(made)

    def _present(self, view: str, pixels_MCTHW: Tensor, draws: list[ColourDraw] | None) -> Tensor:
        shown = self.sampler.presentations.get(view, NATIVE)
        return network_input(pixels_MCTHW, view, shown, draws, self.sampler.augment)
