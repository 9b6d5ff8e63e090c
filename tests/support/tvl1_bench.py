"""What the tests of TV-L1's kernels share: small pictures, and one pair of them in slots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tvl1_flow import stored_pairs

from vidssl.kernels.tvl1_iteration import step, stop_converged
from vidssl.kernels.tvl1_stages import enter_scale, next_stage
from vidssl.kernels.tvl1_tiles import TILE_H, TILE_W
from vidssl.optical_flow.tvl1 import solver
from vidssl.optical_flow.tvl1.pair_slots import PairSlots, pitch_of, tiles_of
from vidssl.optical_flow.tvl1.parameters import Parameters

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Two scales, all kinds of transitions, and few iterations: the interpreter is slow.
FEW = Parameters(nscales=2, warps=2, inner_iterations=2, outer_iterations=2, epsilon=0.0)


def crops(count: int, height: int = 20, width: int = 23) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of small pictures in which something moves."""
    found = []
    for number, pair in enumerate((*stored_pairs(128), *stored_pairs(128))[:count]):
        top, left = 8 * number, 10 + 9 * number
        found.append(
            tuple(
                np.ascontiguousarray(picture[top : top + height, left : left + width])
                for picture in (pair.before, pair.after)
            )
        )
    return found


class Bench:
    """One pair of pictures in slot 1 of 2, and the planes that the kernels make of it."""

    def __init__(self, height: int, width: int, scales: int = 1) -> None:
        self.parameters = replace(FEW, nscales=scales)
        self.pair = crops(1, height, width)[0]
        self.size = height, width
        self.slots = PairSlots(self.parameters, 2, tiles_of(height, width), DEVICE, graph=False)
        self.slots.enter([1], np.stack(self.pair)[None])
        next_stage[(2,)](self.slots._state, self.slots._shapes, 2, 2, S=scales, num_warps=1)

    def launch(self, kernel, *arguments, grid: tuple[int, ...] = (), **constants: int) -> None:
        constants |= {"plane": self.slots.plane, "H": TILE_H, "W": TILE_W, "num_warps": 8}
        kernel[self.slots.tiles, 2, *grid](*arguments, **constants)

    def enter(self) -> None:
        slots = self.slots
        self.launch(
            enter_scale, slots._u, slots._p, slots._slope, slots._pictures, slots._state,
            slots._shapes, 1.25, S=self.parameters.nscales,
        )  # fmt: skip

    def step(self) -> None:
        slots, p = self.slots, self.parameters
        self.launch(
            step, slots._u, slots._p, slots._data, slots._partial, slots._state,
            slots.tiles, p.data_step, p.dual_step, p.coupling,
        )  # fmt: skip

    def stop_converged(self) -> None:
        slots, p = self.slots, self.parameters
        stop_converged[(2,)](
            slots._partial, slots._state, slots._tolerance, slots._work, slots.tiles,
            p.inner_iterations, S=p.nscales, H=TILE_H, W=TILE_W, num_warps=1,
        )  # fmt: skip

    def planes(self, buffer: torch.Tensor) -> torch.Tensor:
        """The slot's planes [..., H, W] of a buffer [N, ..., plane]."""
        height, width = self.size
        used = buffer[1, ..., : height * pitch_of(width)].cpu()
        return used.unflatten(-1, (height, -1))[..., :width]

    def put(self, buffer: torch.Tensor, planes: torch.Tensor) -> None:
        width = self.size[1]
        padded = torch.nn.functional.pad(planes, (0, pitch_of(width) - width)).flatten(-2)
        buffer[1, ..., : padded.shape[-1]] = padded.to(DEVICE)


def moved(dual_4HW: torch.Tensor, u_2HW: torch.Tensor, step: float) -> torch.Tensor:
    """p after a step along the gradient of u."""
    du = solver.forward_gradient(u_2HW[None])[0] * step
    length = 1 + du.square().sum(1, keepdim=True).sqrt()
    return ((dual_4HW.unflatten(0, (2, 2)) + du) / length).flatten(0, 1)
