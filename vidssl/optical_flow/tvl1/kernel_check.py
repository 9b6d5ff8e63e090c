"""Which way TV-L1 is computed on a GPU: by the kernels, where they prove themselves.

The kernels differ from machine to machine, by what compiles them and by what runs them. So before
they are trusted with a data set, their flow of one small pair is held against plain PyTorch's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from vidssl.base.errors import SlowerWay
from vidssl.optical_flow.batched import BatchedFlow, FramePair
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.scheduler import PairsInFlight
from vidssl.optical_flow.tvl1.solver import solve

HEIGHT, WIDTH = 76, 100  # of the pair: more than one tile, up and down and across
MOTION = 1, 2  # pixels it moves down and right
APART = 0.01  # pixels of mean end-point error, at most


def quickest(
    parameters: Parameters, device: torch.device, plain: Callable[[], BatchedFlow]
) -> BatchedFlow:
    """Returns flow by the kernels where they prove themselves, else what `plain` gives."""
    wrong = fault(parameters, device)
    if wrong is None:
        return PairsInFlight(parameters, device)
    told = "TV-L1's kernels do not work here, and plain PyTorch, which is slower, does it: "
    warnings.warn(SlowerWay(told + wrong), stacklevel=2)
    return plain()


def fault(parameters: Parameters, device: torch.device) -> str | None:
    """Returns what is wrong with the kernels' flow of a small pair; None: nothing."""
    before, after = small_pair()
    try:
        tried = PairsInFlight(parameters, device, 1)
        ((_, flow_HW2),) = tried.flows(iter([FramePair(0, before, after)]))
    except Exception as error:  # whatever a compiler or a driver may raise
        return f"{type(error).__name__}: {error}"
    pair = torch.from_numpy(np.stack([before, after])).to(device)
    known_2HW = solve(pair[:1], pair[1:], parameters).flow_B2HW[0].cpu().numpy()
    error = float(np.linalg.norm(flow_HW2 - known_2HW.transpose(1, 2, 0), axis=2).mean())
    return None if error <= APART else f"flow of a small pair is {error:.3g} px from what it is"


def small_pair() -> tuple[np.ndarray, np.ndarray]:
    """Returns a smooth texture, and the same moved: uint8 [H, W] each."""
    draw, (down, right) = torch.Generator().manual_seed(0), MOTION
    coarse = torch.rand(1, 1, HEIGHT // 4, WIDTH // 4, generator=draw)
    whole = F.interpolate(coarse, (HEIGHT + down, WIDTH + right), mode="bicubic").clamp(0, 1)
    texture = (255 * whole[0, 0]).to(torch.uint8).numpy()
    return texture[down:, right:].copy(), texture[:HEIGHT, :WIDTH].copy()
