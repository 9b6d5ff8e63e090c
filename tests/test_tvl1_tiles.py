"""TV-L1's tile kernel: tiles, launches and stops do not show in what it gives.

On a GPU where there is one, else on Triton's interpreter (tests/conftest.py turns it on).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")

from tvl1_bench import DEVICE, Bench

from vidssl.views.tvl1 import solver, tile_kernel
from vidssl.views.tvl1.iteration import ITERATIONS, KERNEL, TileIteration
from vidssl.views.tvl1.kernels import TILE_H, TILE_W
from vidssl.views.tvl1.parameters import Parameters
from vidssl.views.tvl1.slot_state import Field
from vidssl.views.tvl1.slots import Slots, pitch_of

HEIGHT, WIDTH = 19, 71  # 2 × 3 tiles of the size below; no multiple of anything


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch):
    """The interpreter is slow, and pictures are small."""
    monkeypatch.setattr(TileIteration, "at_once", 2)
    monkeypatch.setattr(TileIteration, "rows", 8)


@dataclass(frozen=True)
class Begun:
    """A slot where iteration begins: u, p one move behind, and the data term."""

    bench: Bench
    u: torch.Tensor
    p: torch.Tensor
    data: torch.Tensor

    @property
    def state(self) -> torch.Tensor:
        return self.bench.slots._state[1]

    def launch(self) -> None:
        self.bench.slots._iteration.launch()

    def expect(self, iterations: int) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
        """The solver's u after so many iterations, p before the last move, and the changes."""
        u, p, changes = self.u[None], self.p, []
        for _ in range(iterations):
            before = p
            u, p, change = solver.step(
                u, p.view(1, 2, 2, HEIGHT, WIDTH), self.data[None], self.bench.parameters
            )
            changes.append(float(change))
        return u[0], before.reshape(4, HEIGHT, WIDTH), changes

    def holds(self, iterations: int) -> None:
        """Checks that the slot has made so many iterations."""
        u, p, _ = self.expect(iterations)
        slots = self.bench.slots
        found = [
            self.bench.planes(buffer)[int(self.state[side])]
            for buffer, side in ((slots._u, Field.U_SIDE), (slots._p, Field.P_SIDE))
        ]
        torch.testing.assert_close(found[0], u, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(found[1], p, atol=2e-5, rtol=1e-5)
        assert slots._work.tolist() == [0, iterations * HEIGHT * WIDTH]


def begun(inner_iterations: int = 30) -> Begun:
    """Gives a slot after `smooth`, whose p is up to date."""
    bench = Bench(HEIGHT, WIDTH, kernel="tile")
    slots = bench.slots
    bench.parameters = replace(bench.parameters, inner_iterations=inner_iterations)
    slots._iteration.parameters = bench.parameters
    assert slots._iteration.tiles >= 6
    draw = torch.Generator().manual_seed(0)
    u, p, data = (torch.randn(n, HEIGHT, WIDTH, generator=draw) for n in (2, 4, 3))
    u, p = u[None] / 10, p.view(1, 2, 2, HEIGHT, WIDTH) / 4
    p[:, :, 0, :, -1], p[:, :, 1, -1] = 0, 0  # p begins as 0 and never crosses the border
    data[:2, 4:9, 50:60] = 0  # a plain region
    for _ in range(2):  # from here on, it changes less and less
        u, p, _ = solver.step(u, p, data[None], bench.parameters)
    u, p = u[0], p.reshape(4, HEIGHT, WIDTH)
    for buffer in (slots._u, slots._p, slots._data):
        buffer.copy_(torch.randn(buffer.shape, generator=draw).to(DEVICE))  # what others left there
    side = int(slots._state[1, Field.U_SIDE])
    bench.put(slots._u[:, side], u)
    bench.put(slots._p[:, int(slots._state[1, Field.P_SIDE])], p)
    bench.put(slots._data, data)
    for buffer in (slots._u, slots._p, slots._data):  # and beyond the picture's right border
        rows = buffer[1, ..., : HEIGHT * pitch_of(WIDTH)].unflatten(-1, (HEIGHT, -1))
        rows[..., WIDTH:] = torch.randn(rows[..., WIDTH:].shape, generator=draw).to(DEVICE)
    return Begun(bench, u, p, data)


def test_tiles_and_launches_do_not_show():
    """Two iterations, two more, and the one that is left before the median."""
    slot = begun(inner_iterations=5)
    other = slot.bench.slots._u[0].clone()
    for done in (2, 4, 5):
        slot.launch()
        slot.holds(done)
        assert slot.state[Field.INNER] == done
        assert slot.state[Field.STOPPED] == (done == 5)
    assert slot.state[Field.CONVERGED] == 0
    before = slot.bench.slots._u.clone()
    slot.launch()
    torch.testing.assert_close(slot.bench.slots._u, before, atol=0, rtol=0)  # it has stopped
    torch.testing.assert_close(slot.bench.slots._u[0], other, atol=0, rtol=0)  # slot 0 is empty


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_iteration_stops_after_the_first_that_changes_little_enough(stop):
    slot = begun()
    changes = slot.expect(stop)[2]
    enough = 1.001 * changes[-1]
    assert all(change > enough for change in changes[:-1])
    slot.bench.slots._tolerance.fill_(enough)
    launches = 0
    while not slot.state[Field.STOPPED]:
        slot.launch()
        launches += 1
    slot.holds(stop)
    assert slot.state[Field.CONVERGED] == 1 and slot.state[Field.INNER] == stop
    assert launches == {1: 2, 2: 1, 3: 3}[stop], "what went too far is made again"


def test_what_is_made_again_is_not_judged_again():
    slot = begun()
    slot.bench.slots._tolerance.fill_(0)
    slot.state[Field.REPEATS] = 1
    slot.launch()
    slot.holds(1)
    assert slot.state[Field.STOPPED] == 1 and slot.state[Field.REPEATS] == 0


def test_the_sums_are_the_change_of_each_iteration():
    slot = begun()
    slot.launch()
    _, _, changes = slot.expect(2)
    found = slot.bench.slots._iteration.partial[1, :, :6].double().sum(1).cpu()
    torch.testing.assert_close(found.tolist(), changes, rtol=1e-5, atol=0)


def test_the_size_of_tiles_and_launches_does_not_show(monkeypatch: pytest.MonkeyPatch):
    found = []
    for at_once, rows in ((2, 8), (4, 64)):
        monkeypatch.setattr(TileIteration, "at_once", at_once)
        monkeypatch.setattr(TileIteration, "rows", rows)
        slot = begun(inner_iterations=4)
        while not slot.state[Field.STOPPED]:
            slot.launch()
        slots = slot.bench.slots
        sides = int(slot.state[Field.U_SIDE]), int(slot.state[Field.P_SIDE])
        found.append((slot.bench.planes(slots._u)[sides[0]], slot.bench.planes(slots._p)[sides[1]]))
    # Compiled loops of other lengths may fuse other products with sums.
    rounding = 0 if DEVICE.type == "cpu" else 1e-5
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=rounding, rtol=rounding)


def test_it_is_the_step_kernels_flow():
    tiles, steps = begun(), Bench(HEIGHT, WIDTH, kernel="step")
    for ours, theirs in zip(
        (steps.slots._u, steps.slots._p, steps.slots._data, steps.slots._state),
        (tiles.bench.slots._u, tiles.bench.slots._p, tiles.bench.slots._data,
         tiles.bench.slots._state), strict=True,
    ):  # fmt: skip
        ours.copy_(theirs)
    tiles.launch()
    for _ in range(2):
        steps.slots._iteration.launch()
    for buffer, side in (("_u", Field.U_SIDE), ("_p", Field.P_SIDE)):
        one, other = (
            bench.planes(getattr(bench.slots, buffer))[int(bench.slots._state[1, side])]
            for bench in (tiles.bench, steps)
        )
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    total = [bench.slots._work.tolist() for bench in (tiles.bench, steps)]
    assert total[0] == total[1]


@pytest.mark.parametrize("places", [TILE_H * TILE_W, 7 * TILE_H * TILE_W, 181 * TILE_H * TILE_W])
def test_there_is_room_for_the_tiles_of_any_shape(places):
    room = tile_kernel.most_tiles(places, TILE_W, 4, 64)
    shapes = [(places // pitch, pitch) for pitch in range(TILE_W, places + 1, TILE_W)]
    for height, pitch in shapes:
        for width in (pitch - TILE_W + 1, pitch):
            across = 1
            while across * 56 + 8 < width:
                across += 1
            assert across * math.ceil(height / 64) <= room


def test_the_kernel_is_a_matter_of_choice():
    assert KERNEL in ITERATIONS
    for name, kind in ITERATIONS.items():
        slots = Slots(Parameters(), 1, 1, DEVICE, kernel=name)
        assert isinstance(slots._iteration, kind)
