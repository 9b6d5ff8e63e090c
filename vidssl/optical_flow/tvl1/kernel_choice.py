"""Chooses what computes TV-L1 on a GPU: Triton kernels, or plain PyTorch.

The two are compared on one small pair first (:mod:`vidssl.kernels.start_up_check`).

Legend: H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vidssl.kernels.start_up_check import kernels_work
from vidssl.optical_flow.batched import BatchedFlow, FramePair
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1

HEIGHT, WIDTH = 76, 100  # of the pair: more than one tile, up and down and across
MOTION = 1, 2  # pixels it moves down and right
MOST_APART = 0.01  # pixels of mean end-point error that are tolerated


def choose_tvl1(parameters: Parameters, device: torch.device) -> BatchedFlow:
    """Returns TV-L1 by kernels where they are on and work, else by plain PyTorch.

    Raises:
        UsageError: as of :func:`vidssl.kernels.switch.kernels_are_on`.
    """
    if kernels_work(
        "TV-L1's kernels",
        lambda: flow_of_small_pair(TorchTVL1(parameters, device)),
        lambda: flow_of_small_pair(triton_tvl1(parameters, device, pairs=1)),
        difference,
    ):
        return triton_tvl1(parameters, device)
    return TorchTVL1(parameters, device)


def triton_tvl1(
    parameters: Parameters, device: torch.device, pairs: int | None = None
) -> BatchedFlow:
    """Returns TV-L1 by kernels, which import Triton.

    Args:
        pairs: as of :class:`vidssl.optical_flow.tvl1.scheduler.TritonTVL1`.
    """
    from vidssl.optical_flow.tvl1.scheduler import TritonTVL1

    return TritonTVL1(parameters, device, pairs)


def flow_of_small_pair(method: BatchedFlow) -> np.ndarray:
    """Returns the flow of the pair on which kernels are tried: float32 [H, W, 2]."""
    ((_, flow_HW2),) = method.flows(iter([FramePair(0, *small_pair())]))
    return flow_HW2


def difference(expected_HW2: np.ndarray, found_HW2: np.ndarray) -> str | None:
    """Returns how far two flows are apart, where it is more than is tolerated."""
    error = float(np.linalg.norm(found_HW2 - expected_HW2, axis=2).mean())
    return (
        None if error <= MOST_APART else f"flow of a small pair is {error:.3g} px from what it is"
    )


def small_pair() -> tuple[np.ndarray, np.ndarray]:
    """Returns a smooth texture, and the same moved: uint8 [H, W] each."""
    draw, (down, right) = torch.Generator().manual_seed(0), MOTION
    coarse = torch.rand(1, 1, HEIGHT // 4, WIDTH // 4, generator=draw)
    whole = F.interpolate(coarse, (HEIGHT + down, WIDTH + right), mode="bicubic").clamp(0, 1)
    texture = (255 * whole[0, 0]).to(torch.uint8).numpy()
    return texture[down:, right:].copy(), texture[:HEIGHT, :WIDTH].copy()
