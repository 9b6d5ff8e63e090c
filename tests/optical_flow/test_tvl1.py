"""TV-L1 in PyTorch gives OpenCV's flow, and its parts what they say."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tvl1_flow import agreement, end_point_error, stored_pairs
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.optical_flow.algorithms import FLOW_METHODS, TVL1_PARAMS, TVL1_PRESETS, get_flow_method
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.tvl1 import median, solver
from vidssl.optical_flow.tvl1.estimator import start_batched
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.pyramid import enlarge_flow, pyramid
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1
from vidssl.stages import extract_flow
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.workspace.workspace import Workspace

PUBLISHED = Parameters.of(TVL1_PARAMS)
needs_contrib = pytest.mark.skipif(not hasattr(cv2, "optflow"), reason="needs OpenCV's contrib")


def flow_of(before: np.ndarray, after: np.ndarray, parameters: Parameters) -> np.ndarray:
    pair = torch.from_numpy(np.stack([before, after]))
    return solver.solve(pair[:1], pair[1:], parameters).flow_B2HW[0].permute(1, 2, 0).numpy()


# ── the agreement gate


@pytest.fixture(scope="module")
def flows() -> dict[str, np.ndarray]:
    """Our flow of every stored pair."""
    return {pair.name: flow_of(pair.before, pair.after, PUBLISHED) for pair in stored_pairs()}


def test_the_flow_is_opencvs(flows):
    found = [agreement(flows[pair.name], pair.opencv) for pair in stored_pairs()]
    assert np.mean([one.epe for one in found]) <= 0.01, "a third of what the gate allows"
    assert np.mean([one.close for one in found]) >= 0.985
    assert np.mean([one.bytes for one in found]) >= 0.998
    assert max(one.epe for one in found) <= 0.03


def test_the_flow_is_no_farther_from_the_truth_than_opencvs(flows):
    ours, theirs = (
        np.mean([end_point_error(flow[pair.name], pair.truth).mean() for pair in stored_pairs()])
        for flow in (flows, {pair.name: pair.opencv for pair in stored_pairs()})
    )
    assert ours <= theirs + 0.001


@needs_contrib
@pytest.mark.parametrize("preset", TVL1_PRESETS)
def test_every_preset_is_what_opencv_makes_of_the_same_parameters(preset):
    pair = stored_pairs(128)[3]
    flow = get_flow_method("tvl1", preset).start()(pair.before, pair.after)
    theirs = get_flow_method("tvl1-opencv", preset).start()(pair.before, pair.after)
    assert agreement(flow, theirs).epe < 0.03


@needs_contrib
@pytest.mark.parametrize("shape", [(3, 3), (3, 40), (15, 17), (16, 20), (21, 64)])
def test_small_pictures_have_fewer_scales(shape):
    draw = np.random.default_rng(0)
    before = cv2.GaussianBlur(draw.integers(0, 256, shape, np.uint8), (0, 0), 1)
    after = np.roll(before, 1, axis=1)
    theirs = get_flow_method("tvl1-opencv").start()(before, after)
    assert end_point_error(flow_of(before, after, PUBLISHED), theirs).mean() < 0.02


def test_nothing_moves_in_a_plain_picture():
    plain = np.full((20, 30), 77, np.uint8)
    np.testing.assert_array_equal(flow_of(plain, plain, PUBLISHED), 0)


# ── batches


def test_a_pair_does_not_depend_on_its_batch():
    few = replace(PUBLISHED, warps=2, nscales=3)
    pairs = stored_pairs(128)[:4]
    before, after = (
        torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs]))
        for name in ("before", "after")
    )
    together = solver.solve(before, after, few)
    for n in range(len(pairs)):
        alone = solver.solve(before[n : n + 1], after[n : n + 1], few)
        assert alone.work_B == together.work_B[n]
        torch.testing.assert_close(alone.flow_B2HW[0], together.flow_B2HW[n], rtol=0, atol=0)


def test_batches_of_mixed_sizes_come_back_by_their_tags():
    pairs = [*stored_pairs(128)[:3], *stored_pairs(33)]
    method = TorchTVL1(replace(PUBLISHED, warps=1, nscales=2), torch.device("cpu"), batch=2)
    given = [FramePair(pair.name, pair.before, pair.after) for pair in pairs]
    found = dict(method.flows([given[0], None, *given[1:]]))
    assert found.keys() == {pair.name for pair in pairs}
    for pair in pairs:
        expected = flow_of(pair.before, pair.after, method.parameters)
        np.testing.assert_array_equal(found[pair.name], expected)


def test_work_is_pixels_times_iterations():
    pair = stored_pairs(33)[0]
    every = replace(
        PUBLISHED, epsilon=0.0, warps=2, nscales=2, inner_iterations=3, outer_iterations=2
    )
    before, after = (torch.from_numpy(picture)[None] for picture in (pair.before, pair.after))
    pixels = 25 * 33 + 20 * 26
    assert solver.solve(before, after, every).work_B.tolist() == [pixels * 2 * 3 * 2]
    assert solver.solve(before, after, replace(every, epsilon=1e3)).work_B.tolist() == [pixels * 2]


# ── parameters


def test_scales_are_rounded_as_opencv_rounds():
    sizes = Parameters().scales(256, 340)
    assert sizes == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert Parameters().scales(25, 33) == [(25, 33), (20, 26), (16, 21)]
    assert Parameters().scales(20, 100) == [(20, 100), (16, 80)]
    assert Parameters().scales(10, 10) == [(10, 10)]


def test_what_is_not_built_is_refused():
    with pytest.raises(VidsslError, match="gamma must be 0"):
        Parameters.of(TVL1_PARAMS | {"gamma": 0.1})
    with pytest.raises(VidsslError, match="median_filtering must be 5"):
        Parameters.of(TVL1_PARAMS | {"median_filtering": 3})
    assert Parameters.of(TVL1_PARAMS) == Parameters()


@needs_contrib
def test_opencvs_own_is_opencvs_own():
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    p = TVL1_PARAMS
    assert [tvl1.getTau(), tvl1.getLambda(), tvl1.getTheta()] == [p["tau"], p["lambda"], p["theta"]]
    assert [tvl1.getScalesNumber(), tvl1.getWarpingsNumber()] == [p["nscales"], p["warps"]]
    assert tvl1.getInnerIterations() == p["inner_iterations"]
    assert tvl1.getOuterIterations() == p["outer_iterations"]
    assert [tvl1.getEpsilon(), tvl1.getScaleStep()] == [p["epsilon"], p["scale_step"]]
    assert [tvl1.getMedianFiltering(), tvl1.getGamma()] == [p["median_filtering"], p["gamma"]]
    pair = stored_pairs(33)[0]
    flow = get_flow_method("tvl1-opencv").start()(pair.before, pair.after)
    np.testing.assert_array_equal(flow, tvl1.calc(pair.before, pair.after, None))


def test_an_opencv_without_tvl1_names_the_right_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(VidsslError, match="install opencv-contrib-python"):
        get_flow_method("tvl1-opencv")
    assert get_flow_method("tvl1").params == FLOW_METHODS["tvl1"].presets["published"]


def test_without_triton_a_gpu_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("vidssl.kernels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(VidsslError, match=r"needs triton.*vidssl\[gpu\]"):
        start_batched(TVL1_PARAMS, "cuda")
    assert isinstance(start_batched(TVL1_PARAMS, "cpu"), TorchTVL1)


def test_without_triton_extraction_says_so_before_it_looks_for_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr("vidssl.stages.extract_flow.choose_device", lambda wanted: "cuda")
    said = Watching()
    with pytest.raises(VidsslError, match=r"needs triton.*or give --device cpu"):
        extract_flow.run(Workspace(tmp_path), ExtractFlow(tmp_path / "nowhere"), said)
    assert said.said == said.titles == []


def test_a_wrong_preset_is_told_the_right_one():
    with pytest.raises(VidsslError, match=r"tvl1 has no preset 'quick': it has published, "):
        get_flow_method("tvl1", "quick")


# ── parts


def test_the_median_is_the_median():
    x = torch.randn(3, 9, 11, generator=torch.Generator().manual_seed(0))
    windows = torch.nn.functional.pad(x[:, None], (2, 2, 2, 2), mode="replicate")
    windows = windows[:, 0].unfold(1, 5, 1).unfold(2, 5, 1).flatten(3)
    torch.testing.assert_close(median.median_5x5(x), windows.median(dim=3).values, rtol=0, atol=0)


def test_the_median_is_opencvs():
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    found = median.median_5x5(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_array_equal(found, cv2.medianBlur(x, 5))


def test_the_networks_sort_every_pattern_of_zeros_and_ones():
    """A network of comparisons that is right for these is right for all numbers."""
    for bits in product((0, 1), repeat=5):
        wires = list(bits)
        for a, b in median.SORT_FIVE:
            wires[a], wires[b] = sorted((wires[a], wires[b]))
        assert wires == sorted(bits)
    zeros = [z for z in product(range(6), repeat=5) if list(z) == sorted(z, reverse=True)]
    assert len(zeros) == 252  # rows and columns are in order
    for row_zeros in zeros:
        wires = {(r, c): int(c >= row_zeros[r]) for r in range(5) for c in range(5)}
        for a, b in median.MIDDLE:
            wires[a], wires[b] = sorted((wires[a], wires[b]))
        assert wires[median.MEDIAN] == int(sum(row_zeros) < 13)


def test_the_pyramid_is_opencvs():
    picture = np.random.default_rng(0).integers(0, 256, (61, 83)).astype(np.float32)
    sizes = Parameters().scales(61, 83)
    levels = pyramid(torch.from_numpy(picture)[None], sizes, 0.8)
    for level, size in zip(levels, sizes, strict=True):
        assert picture.shape == size
        np.testing.assert_allclose(level[0], picture, atol=2e-4)
        picture = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    u = np.random.default_rng(1).normal(size=(49, 66)).astype(np.float32)
    theirs = cv2.resize(u, (83, 61), interpolation=cv2.INTER_LINEAR) / 0.8
    found = enlarge_flow(torch.from_numpy(u)[None], (61, 83), 0.8)[0]
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_the_warp_is_a_bicubic_one_with_zeros_beyond():
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (30, 41)).astype(np.float32)
    u = draw.normal(0, 6, (2, 30, 41)).astype(np.float32)
    found = solver.warp(torch.from_numpy(picture)[None, None], torch.from_numpy(u)[None])[0, 0]
    np.testing.assert_allclose(found, slow_warp(picture, u), atol=5e-3)


def slow_warp(picture: np.ndarray, u_2HW: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution, pixel by pixel."""

    def weight(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    height, width = picture.shape
    out = np.zeros_like(picture)
    for y, x in product(range(height), range(width)):
        px, py = x + float(u_2HW[0, y, x]), y + float(u_2HW[1, y, x])
        for j, i in product(range(-1, 3), repeat=2):
            row, column = int(np.floor(py)) + j, int(np.floor(px)) + i
            if 0 <= row < height and 0 <= column < width:
                out[y, x] += picture[row, column] * weight(py - row) * weight(px - column)
    return out


def test_divergence_is_minus_the_gradients_transpose():
    """So the dual step descends: ⟨∇u, p⟩ = −⟨u, div p⟩, where p is 0 beyond the last pixel."""
    draw = torch.Generator().manual_seed(0)
    u = torch.randn(1, 2, 6, 7, generator=draw, dtype=torch.float64)
    p = torch.randn(1, 2, 2, 6, 7, generator=draw, dtype=torch.float64)
    p[:, :, 0, :, -1] = 0
    p[:, :, 1, -1] = 0
    left = (solver.forward_gradient(u) * p).sum()
    torch.testing.assert_close(left, -(u * solver.divergence(p)).sum())


def test_one_step_by_hand():
    """One pixel moves against ρ/|∇I|², held at λθ; p takes up the new gradient."""
    u, p = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 2, 3, 3)
    data = torch.zeros(1, 3, 3, 3)
    data[0, :, 1, 1] = torch.tensor([4.0, 3.0, 0.5])  # ∇I = (4, 3), ρ = 0.5: −0.02 of it
    data[0, :, 0, 0] = torch.tensor([1.0, 0.0, -9.0])  # far off: +0.045 of it
    new, dual, error = solver.step(u, p, data, PUBLISHED)
    torch.testing.assert_close(new[0, :, 1, 1], torch.tensor([-0.08, -0.06]))
    torch.testing.assert_close(new[0, :, 0, 0], torch.tensor([0.045, 0.0]))
    assert new.count_nonzero() == 3
    torch.testing.assert_close(error, torch.tensor([0.08**2 + 0.06**2 + 0.045**2]).double())
    step = 0.25 / 0.3
    expected = step * 0.08 / (1 + step * 0.08 * 2**0.5)
    torch.testing.assert_close(dual[0, 0, :, 1, 1], torch.tensor([expected, expected]))
    pushed = -step * 0.08 / (1 + step * 0.08)
    torch.testing.assert_close(dual[0, 0, :, 1, 0], torch.tensor([pushed, 0.0]))
