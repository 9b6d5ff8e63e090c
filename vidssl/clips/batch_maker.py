"""The interface between the loader and the classes that make its batches.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidssl.clips.batch import ClipBatch
from vidssl.clips.sampler import ClipSampler

Prepared = TypeVar("Prepared")  # what a thread prepares of one sample


@dataclass(frozen=True)
class PendingBatch(Generic[Prepared]):
    """A micro-batch whose samples threads are preparing.

    Attributes:
        clips: memory that the threads fill, per view; empty where each sample has memory of its
            own.
        source, label, index: as of :class:`~vidssl.clips.batch.ClipBatch`.
        samples: one for each sample, ready when its thread is done.
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor
    samples: list[Future[Prepared]]


class BatchMaker(ABC, Generic[Prepared]):
    """Makes a rank's micro-batches: threads prepare them, the training loop's thread finishes them.

    Args:
        sampler: draws the clips.
        device: where the batches are needed.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device

    @abstractmethod
    def begin(
        self, pool: ThreadPoolExecutor, epoch: int, positions: np.ndarray, rows: np.ndarray
    ) -> PendingBatch[Prepared]:
        """Hands the samples of a micro-batch to the threads.

        Args:
            positions: within the epoch [B].
            rows: of the training videos [B].
        """

    @abstractmethod
    def finish(self, pending: PendingBatch[Prepared]) -> ClipBatch:
        """Waits for the threads and returns the batch on the device."""

    def video_columns(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Returns source, label and index of some videos [B] each, in pinned memory for CUDA."""
        videos, pinned = self.sampler.videos, self.device.type == "cuda"
        columns = (videos.source, videos.label, videos.index)
        made = [torch.from_numpy(column[rows]) for column in columns]
        source, label, index = (x.pin_memory() if pinned else x for x in made)
        return source, label, index


def join_by_view(samples: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Joins the lists of all samples, view by view; those of the first sample come first."""
    return {view: [x for sample in samples for x in sample[view]] for view in samples[0]}
