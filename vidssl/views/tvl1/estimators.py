"""TV-L1 as the other flow algorithms are called: pair by pair, or in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from vidssl.views.batched_flow import BatchedFlow, FramePair, TaggedFlow, batches_of_one_size
from vidssl.views.tvl1.parameters import Parameters
from vidssl.views.tvl1.solver import solve

BATCH = 32  # pairs that plain PyTorch takes at a time


def start(params: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Gives an estimator of one pair after another, on the CPU."""
    parameters = Parameters.of(params)

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        pair = torch.from_numpy(np.stack([before, after]))
        return _as_array(solve(pair[:1], pair[1:], parameters).flow_B2HW[0])

    return estimate


def start_batched(params: Mapping[str, Any], device: str) -> BatchedFlow:
    """Gives the fastest batched TV-L1 that a device ("cpu" or "cuda") can run."""
    return TorchTVL1(Parameters.of(params), device)


class TorchTVL1(BatchedFlow):
    """Plain PyTorch on any device, batch by batch: the reference for what is faster."""

    def __init__(self, parameters: Parameters, device: str, batch: int = BATCH) -> None:
        self.parameters, self.device, self.batch = parameters, torch.device(device), batch

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        for batch in batches_of_one_size(pairs, self.batch):
            before, after = (
                torch.from_numpy(np.stack(frames)).to(self.device)
                for frames in zip(*((pair.before, pair.after) for pair in batch), strict=True)
            )
            flow_B2HW = solve(before, after, self.parameters).flow_B2HW.cpu()
            for pair, flow_2HW in zip(batch, flow_B2HW, strict=True):
                yield pair.tag, _as_array(flow_2HW)


def _as_array(flow_2HW: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(flow_2HW.permute(1, 2, 0).numpy())
