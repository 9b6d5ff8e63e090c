"""TV-L1 as the other flow algorithms are called: pair by pair, or in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from vidssl.base.distributed import local_device
from vidssl.base.extras import require_extra
from vidssl.optical_flow.batched import (
    BatchedFlow,
    FramePair,
    TaggedFlow,
    batches_of_one_size,
)
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.solver import Work, solve

BATCH = 32  # pairs that plain PyTorch takes at a time


def start(params: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns an estimator of one pair after another, on the CPU."""
    parameters = Parameters.of(params)

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        pair = torch.from_numpy(np.stack([before, after]))
        return _as_array(solve(pair[:1], pair[1:], parameters).flow_B2HW[0])

    return estimate


def check_triton() -> None:
    """Raises a :class:`VidsslError` where Triton is missing, which a GPU needs."""
    require_extra("gpu", "TV-L1 on a GPU", "triton", more=", or give --device cpu")


def start_batched(params: Mapping[str, Any], device: str) -> BatchedFlow:
    """Returns batched TV-L1 on a device: on "cuda" by Triton kernels, where they prove
    themselves, else in plain PyTorch. The flow is the same.

    Raises:
        VidsslError: Triton is missing.
    """
    parameters, where = Parameters.of(params), local_device(device)
    if where.type != "cuda":
        return TorchTVL1(parameters, where)
    check_triton()
    from vidssl.optical_flow.tvl1.kernel_check import quickest

    return quickest(parameters, where, lambda: TorchTVL1(parameters, where))


class TorchTVL1(BatchedFlow):
    """Plain PyTorch on any device, batch by batch: the reference for what is faster."""

    def __init__(self, parameters: Parameters, device: torch.device, batch: int = BATCH) -> None:
        self.parameters, self.device, self.batch = parameters, device, batch
        self.work = Work()

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
                yield pair.tag, _as_array(flow_2HW)


def _as_array(flow_2HW: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(flow_2HW.permute(1, 2, 0).numpy())
