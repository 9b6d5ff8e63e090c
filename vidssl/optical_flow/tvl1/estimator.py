"""Starts TV-L1 as the other flow algorithms are started: pair by pair, or in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from vidssl.base.distributed import local_device
from vidssl.base.optional_packages import require_extra
from vidssl.kernels.switch import kernels_are_on
from vidssl.optical_flow.batched import BatchedFlow
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.solver import solve
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1, flow_as_array


def start(params: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns an estimator of one pair after another, on the CPU."""
    parameters = Parameters.of(params)

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        pair = torch.from_numpy(np.stack([before, after]))
        return flow_as_array(solve(pair[:1], pair[1:], parameters).flow_B2HW[0])

    return estimate


def check_triton() -> None:
    """Checks that Triton, which TV-L1 on a GPU needs, is installed, unless kernels are off.

    Raises:
        VidsslError: it is missing.
    """
    if kernels_are_on():
        require_extra("gpu", "TV-L1 on a GPU", "triton", more=", or give --device cpu")


def start_batched(params: Mapping[str, Any], device: str) -> BatchedFlow:
    """Returns TV-L1 in batches on a device.

    On "cuda" Triton kernels compute it where they are on and work, else plain PyTorch. The flow
    is the same but for rounding.

    Raises:
        VidsslError: Triton is missing.
        UsageError: as of :func:`vidssl.kernels.switch.kernels_are_on`.
    """
    parameters, where = Parameters.of(params), local_device(device)
    if where.type != "cuda":
        return TorchTVL1(parameters, where)
    check_triton()
    from vidssl.optical_flow.tvl1.kernel_choice import choose_tvl1

    return choose_tvl1(parameters, where)
