"""TV-L1's Triton kernels give what plain PyTorch gives.

On a GPU where there is one, else on Triton's interpreter (tests/conftest.py turns it on).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from interpreting import use_the_interpreter
from tvl1_bench import DEVICE, FEW, Bench, crops, moved
from tvl1_flow import end_point_error

from vidssl.base.errors import SlowerWay
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.tvl1 import solver
from vidssl.optical_flow.tvl1.median import median_5x5
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.pyramid import enlarge_flow

pytest.importorskip("triton", reason="needs Triton")

from vidssl.kernels.tvl1_median import median_filter
from vidssl.kernels.tvl1_state import Field
from vidssl.kernels.tvl1_warp import linearise
from vidssl.optical_flow.tvl1 import kernel_choice
from vidssl.optical_flow.tvl1.pair_slots import PairSlots, pitch_of
from vidssl.optical_flow.tvl1.scheduler import TritonTVL1
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1

use_the_interpreter()


def reference(pair: tuple[np.ndarray, np.ndarray], parameters: Parameters) -> np.ndarray:
    before, after = (torch.from_numpy(picture)[None] for picture in pair)
    return solver.solve(before, after, parameters).flow_B2HW[0].permute(1, 2, 0).numpy()


def by_kernels(parameters: Parameters, pairs: int, **options: int | bool) -> TritonTVL1:
    return TritonTVL1(parameters, DEVICE, pairs, options)


def run(method: TritonTVL1, pairs: list) -> list[np.ndarray]:
    given = [FramePair(number, *pair) for number, pair in enumerate(pairs)]
    found = dict(method.flows(iter(given)))
    assert sorted(found) == list(range(len(pairs)))
    return [found[number] for number in range(len(pairs))]


# ── which is used


def test_kernels_are_used_where_they_give_the_same_flow(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(kernel_choice, "HEIGHT", 20)
    monkeypatch.setattr(kernel_choice, "WIDTH", 24)
    iterate = PairSlots._iterate

    def iterate_and_move(self):
        iterate(self)
        self._u.add_(0.5)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(kernel_choice.choose_tvl1(FEW, DEVICE), TritonTVL1)
    monkeypatch.setattr(PairSlots, "_iterate", iterate_and_move)
    with pytest.warns(SlowerWay, match="do not work here, .* does it: flow of a small pair is"):
        assert isinstance(kernel_choice.choose_tvl1(FEW, DEVICE), TorchTVL1)


def test_kernels_that_do_not_compile_are_not_used(monkeypatch: pytest.MonkeyPatch):
    def fail(self):
        raise RuntimeError("no ptxas")

    monkeypatch.setattr(PairSlots, "_iterate", fail)
    with pytest.warns(SlowerWay, match="TV-L1's kernels do not work .*: RuntimeError: no ptxas"):
        assert isinstance(kernel_choice.choose_tvl1(FEW, DEVICE), TorchTVL1)


def test_kernels_are_not_used_where_they_are_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIDSSL_KERNELS", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(kernel_choice.choose_tvl1(FEW, DEVICE), TorchTVL1)


# ── all of it


@pytest.fixture(scope="module")
def flows() -> list[np.ndarray]:
    """The flow of two pairs in two slots."""
    return run(by_kernels(FEW, pairs=2, iterations=2, blocks=1), crops(2))


def test_at_equal_iterations_it_is_the_flow_of_plain_pytorch(flows):
    for flow, pair in zip(flows, crops(2), strict=True):
        expected = reference(pair, FEW)
        assert np.abs(expected).max() > 0.3, "something moves"
        np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=1e-3)
        assert end_point_error(flow, expected).mean() < 3e-5


def test_blocks_slots_and_company_change_no_bit(flows):
    alone = run(by_kernels(FEW, pairs=1, iterations=3, blocks=2), crops(2)[1:])
    np.testing.assert_array_equal(alone[0], flows[1])


def test_every_pair_stops_by_itself():
    parameters = Parameters(nscales=1, warps=1, inner_iterations=6, outer_iterations=2)
    moving, still = crops(1, 18, 20)[0], [np.full((18, 20), 90, np.uint8)] * 2
    method = by_kernels(parameters, pairs=2, iterations=4, blocks=1)
    flows = run(method, [moving, still])
    np.testing.assert_array_equal(flows[1], 0)
    before, after = (torch.from_numpy(np.stack([a, b])) for a, b in zip(moving, still, strict=True))
    expected = solver.solve(before, after, parameters)
    assert expected.work_B[1] == 18 * 20, "a plain picture stops after one iteration"
    assert method.work.pixel_iterations == expected.work_B.sum()
    error = end_point_error(flows[0], expected.flow_B2HW[0].permute(1, 2, 0).numpy())
    assert error.mean() < 1e-4


def test_sizes_may_be_mixed_and_slots_are_filled_again():
    parameters = replace(FEW, nscales=1, warps=1, outer_iterations=1)
    pairs = [*crops(2), *crops(1, 17, 33), *crops(1, 3, 5), *crops(2)[::-1]]

    def source() -> Iterator[FramePair | None]:
        for number, pair in enumerate(pairs):
            yield FramePair(number, *pair)
            yield from [None] * (number % 3)

    method = by_kernels(parameters, pairs=2, iterations=1, blocks=1)
    found = dict(method.flows(source()))
    assert method.work.pairs == len(pairs)
    for number, pair in enumerate(pairs):
        np.testing.assert_allclose(found[number], reference(pair, parameters), atol=1e-4, rtol=1e-3)
    assert not list(method.flows(iter([]))), "nothing is left over for the next call"


# ── kernel by kernel


def test_a_scale_begins_with_nothing_moving_and_the_pictures_slope():
    bench = Bench(19, 37)
    slots = bench.slots
    slots._p.fill_(7)
    slots._u.fill_(7)
    bench.enter()
    assert slots._state[1, Field.ENTERS] == 1 and slots._state[0, Field.ENTERS] == 0
    assert (bench.planes(slots._p)[0] == 0).all() and (slots._p[0] == 7).all()
    assert (bench.planes(slots._u)[1] == 0).all()
    expected = torch.stack(solver.centred_gradient(torch.from_numpy(bench.pair[1])[None].float()))
    torch.testing.assert_close(bench.planes(slots._slope), expected[:, 0])


def test_the_data_term_is_the_solvers():
    bench = Bench(19, 37)
    slots = bench.slots
    bench.enter()
    u = torch.randn(2, 19, 37, generator=torch.Generator().manual_seed(0)) * 4
    u[0, 3, 4], u[1, 5, 6] = -1e6, 1e6  # far beyond the border
    bench.put(slots._u[:, 1], u)
    bench.launch(linearise, slots._u, slots._data, slots._slope, slots._pictures, slots._state, S=1)
    before, after = (torch.from_numpy(picture)[None].float() for picture in bench.pair)
    moving = torch.stack([after, *solver.centred_gradient(after)], dim=1)
    expected = solver.linearise(before, moving, u[None])[0]
    torch.testing.assert_close(bench.planes(slots._data), expected, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("enters", [0, 1])
def test_p_takes_up_the_flow_before_its_median_does(enters):
    bench = Bench(19, 37)
    slots = bench.slots
    draw = torch.Generator().manual_seed(0)
    u, dual = (torch.randn(n, 19, 37, generator=draw) for n in (2, 4))
    bench.put(slots._u[:, 1], u)
    bench.put(slots._p[:, 0], dual)
    slots._state[1, Field.ENTERS] = enters
    dual_step = bench.parameters.dual_step
    bench.launch(median_filter, slots._u, slots._p, slots._state, dual_step, grid=(2,))
    torch.testing.assert_close(bench.planes(slots._u)[0], median_5x5(u), atol=0, rtol=0)
    expected = dual if enters else moved(dual, u, dual_step)  # a new scale's p stays 0
    torch.testing.assert_close(bench.planes(slots._p)[0], expected)


@pytest.mark.parametrize("inner", [0, 1])
def test_one_step_is_the_solvers(inner):
    bench = Bench(19, 37)
    slots, p = bench.slots, replace(bench.parameters, inner_iterations=3)
    bench.parameters = p
    draw = torch.Generator().manual_seed(0)
    u, dual, data = (torch.randn(n, 19, 37, generator=draw) for n in (2, 4, 3))
    data[:2, 4:9, 5:9] = 0  # a plain region
    bench.put(slots._u[:, 0], u)
    bench.put(slots._p[:, 0], dual)
    bench.put(slots._data, data)
    slots._state[1, Field.INNER] = inner
    bench.step()
    if inner:  # p is one move behind
        dual = moved(dual, u, p.dual_step)
    new, _, error = solver.step(u[None], dual.view(1, 2, 2, 19, 37), data[None], p)
    torch.testing.assert_close(bench.planes(slots._u)[1], new[0])
    torch.testing.assert_close(bench.planes(slots._p)[1], dual)
    partial = slots._partial[1].double().sum().cpu()
    torch.testing.assert_close(partial, error[0], rtol=1e-5, atol=0)
    bench.stop_converged()
    state = slots._state[1].tolist()
    fields = (Field.INNER, Field.U_SIDE, Field.P_SIDE, Field.STOPPED)
    assert [state[field] for field in fields] == [inner + 1, 1, 1, 0]
    assert slots._work.tolist() == [0, 19 * 37]


def test_flow_of_a_coarse_scale_is_enlarged():
    bench = Bench(20, 41, scales=2)
    slots = bench.slots
    u = torch.randn(2, 16, 33, generator=torch.Generator().manual_seed(0))
    bench.size = 16, 33
    bench.put(slots._u[:, 0], u)
    for field, value in zip(
        (Field.SCALE, Field.HEIGHT, Field.WIDTH, Field.PITCH),
        (0, 20, 41, pitch_of(41)),
        strict=True,
    ):
        slots._state[1, field] = value
    bench.enter()
    bench.size = 20, 41
    found = bench.planes(slots._u)[1]
    torch.testing.assert_close(found, enlarge_flow(u, (20, 41), 0.8), atol=1e-5, rtol=1e-5)
