"""TV-L1 in batches by plain PyTorch, on any device: the reference for the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from vidssl.optical_flow.batched import BatchedFlow, FramePair, TaggedFlow, batches_of_one_size
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.solver import WorkCounter, solve

BATCH = 32  # pairs that are computed at a time


class TorchTVL1(BatchedFlow):
    """Computes flow batch by batch; a batch is done when its slowest pair is.

    Attributes:
        work: done so far.
    """

    def __init__(self, parameters: Parameters, device: torch.device, batch: int = BATCH) -> None:
        self.parameters, self.device, self.batch = parameters, device, batch
        self.work = WorkCounter()

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        for batch in batches_of_one_size(pairs, self.batch):
            before, after = (
                torch.from_numpy(np.stack(frames)).to(self.device)
                for frames in zip(*((pair.before, pair.after) for pair in batch), strict=True)
            )
            solution = solve(before, after, self.parameters)
            self.work.pairs += len(batch)
            self.work.pixel_iterations += int(solution.work_B.sum())
            for pair, flow_2HW in zip(batch, solution.flow_B2HW.cpu(), strict=True):
                yield pair.tag, flow_as_array(flow_2HW)


def flow_as_array(flow_2HW: torch.Tensor) -> np.ndarray:
    """Returns flow as NumPy's float32 [H, W, 2]."""
    return np.ascontiguousarray(flow_2HW.permute(1, 2, 0).numpy())
