"""How all slots iterate: one iteration a launch, or several whose state stays on chip.

Both give the flow that stopping after every iteration gives. Which one is the default, and why, is
in docs/benchmarks.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vidssl.views.tvl1 import kernels, tile_kernel
from vidssl.views.tvl1.kernels import TILE_H, TILE_W
from vidssl.views.tvl1.parameters import Parameters


@dataclass(frozen=True)
class Buffers:
    """What iterating reads and writes, laid out as :mod:`vidssl.views.tvl1.kernels` says."""

    u: Tensor
    p: Tensor
    data: Tensor
    state: Tensor
    tolerance: Tensor
    work: Tensor

    @property
    def count(self) -> int:
        """Of slots."""
        return self.u.shape[0]

    @property
    def plane(self) -> int:
        """Places of a plane."""
        return self.u.shape[-1]


class Iteration(ABC):
    """Iterates all slots that have not stopped, and stops those that need no other iteration.

    Attributes:
        at_once: iterations of a launch, at most.
        partial: Σ |change of u|² of parts of the picture, which is what stops a slot.
    """

    at_once: int
    partial: Tensor

    @abstractmethod
    def __init__(self, buffers: Buffers, parameters: Parameters) -> None: ...

    @abstractmethod
    def launch(self) -> None: ...


class StepIteration(Iteration):
    """One iteration a launch: :func:`vidssl.views.tvl1.kernels.step`."""

    at_once = 1

    def __init__(self, buffers: Buffers, parameters: Parameters) -> None:
        self.buffers, self.parameters = buffers, parameters
        self.tiles = buffers.plane // (TILE_H * TILE_W)
        self.partial = torch.zeros(buffers.count, self.tiles, device=buffers.u.device)

    def launch(self) -> None:
        b, p, tile = self.buffers, self.parameters, {"H": TILE_H, "W": TILE_W}
        kernels.step[self.tiles, b.count](
            b.u, b.p, b.data, self.partial, b.state, self.tiles,
            p.data_step, p.dual_step, p.coupling,
            plane=b.plane, **tile, num_warps=kernels.NUM_WARPS,
        )  # fmt: skip
        kernels.judge[(b.count,)](
            self.partial, b.state, b.tolerance, b.work, self.tiles,
            p.inner_iterations, S=p.nscales, **tile, num_warps=1,
        )  # fmt: skip


class TileIteration(Iteration):
    """Several iterations a launch: :func:`vidssl.views.tvl1.tile_kernel.iterate`."""

    at_once = tile_kernel.ITERATIONS
    rows = tile_kernel.TILE_ROWS

    def __init__(self, buffers: Buffers, parameters: Parameters) -> None:
        self.buffers, self.parameters = buffers, parameters
        self.tiles = tile_kernel.most_tiles(buffers.plane, TILE_W, self.at_once, self.rows)
        shape = (buffers.count, self.at_once, self.tiles)
        self.partial = torch.zeros(shape, device=buffers.u.device)

    def launch(self) -> None:
        b, p = self.buffers, self.parameters
        tile = {"K": self.at_once, "W": tile_kernel.TILE_W, "R": self.rows}
        tile_kernel.iterate[self.tiles, b.count](
            b.u, b.p, b.data, self.partial, b.state, self.tiles, p.inner_iterations,
            p.data_step, p.dual_step, p.coupling, plane=b.plane, **tile, num_warps=1,
        )  # fmt: skip
        tile_kernel.judge_tiles[(b.count,)](
            self.partial, b.state, b.tolerance, b.work, self.tiles, p.inner_iterations,
            S=p.nscales, **tile, num_warps=1,
        )  # fmt: skip


ITERATIONS: Mapping[str, type[Iteration]] = {"tile": TileIteration, "step": StepIteration}
KERNEL = "tile"  # unless told
