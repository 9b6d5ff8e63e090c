"""What the loader asks of everything that makes batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidssl.clips.sampler import ClipBatch, ClipSampler

Work = TypeVar("Work")  # what a thread makes of one sample


@dataclass(frozen=True)
class Pending(Generic[Work]):
    """A micro-batch that threads are at.

    Attributes:
        clips: memory that they fill, per view; empty where each sample brings its own.
        source, label, index: as of :class:`~vidssl.clips.sampler.ClipBatch`.
        work: one for each sample.
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor
    work: list[Future[Work]]


class BatchMaker(ABC, Generic[Work]):
    """Makes a rank's micro-batches: threads begin them, the training loop's thread finishes them.

    Args:
        sampler: draws clips and gives their pixels.
        device: where batches are wanted.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device

    @abstractmethod
    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> Pending[Work]:
        """Lets threads begin with the clips of some videos.

        Args:
            positions: within the epoch [B].
            rows: of the training videos [B].
        """

    @abstractmethod
    def finish(self, pending: Pending[Work]) -> ClipBatch:
        """Waits for the threads, and gives the batch on the device."""

    def numbers(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Returns source, label and index of some videos, in memory that copies may be made
        from.
        """
        videos, pinned = self.sampler.videos, self.device.type == "cuda"
        made = [torch.from_numpy(of[rows]) for of in (videos.source, videos.label, videos.index)]
        source, label, index = (x.pin_memory() if pinned else x for x in made)
        return source, label, index


def by_view(of_samples: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Puts what samples have by view one after another: all of the first sample's first."""
    return {view: [x for sample in of_samples for x in sample[view]] for view in of_samples[0]}
