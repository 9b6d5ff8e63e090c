"""The motion backbones: maps that say where something moves which way, whatever the contrast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vidssl.backbones.motion import GRID, Motion, MotionS3D, on_grid
from vidssl.backbones.motion_stem import (
    CELL,
    GREY_WEIGHTS,
    NORMAL_FLOOR,
    NORMAL_MOST,
    SLOW,
    WINDOW_FLOOR,
    WINDOW_MOST,
    MotionStem,
)
from vidssl.backbones.s3d import S3D
from vidssl.views import get_view

# Places of the groups among the 23 maps of RGB.
NORMAL, NORMAL_STILL, WINDOW, WINDOW_STILL, EDGES, CHANGE = (
    slice(0, 8), slice(8, 9), slice(9, 17), slice(17, 18), slice(18, 22), slice(22, 23),
)  # fmt: skip


def shown(pixels_THW: np.ndarray) -> torch.Tensor:
    """Returns grey pixels of 0 to 255 as RGB network input [1, 3, T, H, W]."""
    film = torch.from_numpy(pixels_THW).round().to(torch.uint8)
    return get_view("rgb").present(film[None, None].repeat(1, 3, 1, 1, 1), "native")


def texture(side: int, seed: int = 0) -> np.ndarray:
    """Returns smooth noise of 20 to 235, larger than the clips cut from it."""
    noise = np.random.default_rng(seed).normal(size=(side, side))
    wave = np.abs(np.fft.fftfreq(side))
    soft = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((wave[:, None] ** 2 + wave**2) * 300))).real
    return 127 + 100 * soft / np.abs(soft).max()


def moving(dx: int, dy: int, frames: int = 4, side: int = 32) -> np.ndarray:
    """Returns a texture that moves by (dx, dy) pixels a frame: [T, H, W]."""
    whole, middle = texture(128), 48
    cut = [(middle - dy * t, middle - dx * t) for t in range(frames)]
    return np.stack([whole[y : y + side, x : x + side] for y, x in cut])


# ── the slow twin ────────────────────────────────────────────────────────────────────────────


def slow_maps(pixels_THW: np.ndarray) -> np.ndarray:
    """Returns the maps of RGB pixel by pixel, before they are balanced: [23, P, H/4, W/4]."""
    luma = sum(GREY_WEIGHTS) * np.round(pixels_THW) / 255
    blurred = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    frames, height, width = luma.shape
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    soft = np.zeros_like(luma)
    for y in range(3):
        for x in range(3):
            soft += kernel[y, x] * blurred[:, y : y + height, x : x + width]
    maps = np.zeros((23, frames - 1, height // CELL, width // CELL))
    for pair in range(frames - 1):
        middle, change = (soft[pair] + soft[pair + 1]) / 2, soft[pair + 1] - soft[pair]
        edge = np.pad(middle, 1, mode="edge")
        gx, gy = (edge[1:-1, 2:] - edge[1:-1, :-2]) / 2, (edge[2:, 1:-1] - edge[:-2, 1:-1]) / 2
        for y in range(height // CELL * CELL):
            for x in range(width // CELL * CELL):
                cell = maps[:, pair, y // CELL, x // CELL]
                along = -change[y, x] / (gx[y, x] ** 2 + gy[y, x] ** 2 + NORMAL_FLOOR)
                normal = np.clip([along * gx[y, x], along * gy[y, x]], -NORMAL_MOST, NORMAL_MOST)
                near = np.s_[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
                window = least_squares(gx[near], gy[near], change[near])
                add_motion(cell[NORMAL], cell[NORMAL_STILL], normal)
                add_motion(cell[WINDOW], cell[WINDOW_STILL], window)
                for k in range(4):
                    angle = math.pi * k / 4
                    cell[18 + k] += abs(gx[y, x] * math.cos(angle) + gy[y, x] * math.sin(angle))
                cell[22] += abs(change[y, x])
    return maps / CELL**2


def least_squares(gx: np.ndarray, gy: np.ndarray, change: np.ndarray) -> np.ndarray:
    matrix = np.array([[np.mean(gx * gx), np.mean(gx * gy)], [np.mean(gx * gy), np.mean(gy * gy)]])
    right = -np.array([np.mean(gx * change), np.mean(gy * change)])
    found = np.linalg.solve(matrix + WINDOW_FLOOR * np.eye(2), right)
    return np.clip(found, -WINDOW_MOST, WINDOW_MOST)


def add_motion(energies: np.ndarray, still: np.ndarray, motion: np.ndarray) -> None:
    for k in range(8):
        angle = math.pi * k / 4
        energies[k] += max(motion @ [math.cos(angle), math.sin(angle)], 0)
    still += np.hypot(*motion) < SLOW


def test_the_maps_are_those_of_a_slow_twin():
    pixels = moving(1, 1, frames=3, side=16)
    stem = MotionStem(3)
    got = torch.cat(stem.maps(shown(pixels)), dim=1)[0].double().numpy()
    want = slow_maps(pixels)
    assert got.shape == want.shape == (23, 2, 4, 4)
    assert np.abs(got - want).max() < 1e-3 and want[NORMAL].max() > 0.1


# ── what the maps say ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("dx", "dy", "direction"),
    [(1, 0, 0), (1, 1, 1), (0, 1, 2), (-1, 1, 3), (-1, 0, 4), (-1, -1, 5), (0, -1, 6), (1, -1, 7)],
)
def test_the_strongest_direction_is_that_of_the_motion(dx: int, dy: int, direction: int):
    maps = MotionStem(3)(shown(moving(dx, dy)))[0].mean((1, 2, 3))
    assert int(maps[NORMAL].argmax()) == int(maps[WINDOW].argmax()) == direction
    still = MotionStem(3)(shown(moving(0, 0)))[0]
    assert still[WINDOW].max() < 1e-3 and still[WINDOW_STILL].mean() > 0.99


def test_of_flow_the_strongest_direction_is_its_own():
    flow = torch.zeros(1, 2, 4, 16, 16)
    flow[:, 1] = 0.1  # downwards
    maps = MotionStem(2)(flow)[0].mean((1, 2, 3))
    assert int(maps[:8].argmax()) == 2


def test_contrast_does_not_matter():
    pixels = moving(1, 0)
    full, half = (MotionStem(3)(shown(127 + (pixels - 127) * c)) for c in (1.0, 0.5))
    assert (full - half)[:, EDGES].abs().mean() < 0.02
    assert (full - half)[:, CHANGE].abs().mean() < 0.05


@pytest.mark.parametrize("channels", [1, 2, 3, 17])
def test_stillness_and_black_are_finite(channels: int):
    network = Motion(channels).eval()
    for x in (torch.zeros(1, channels, 4, 16, 16), torch.full((1, channels, 4, 16, 16), 1e3)):
        assert torch.isfinite(network(x)).all()
    # Rounding must not make the energy of a direction negative: its root would be no number.
    assert torch.isfinite(MotionStem(channels)(torch.randn(2, channels, 16, 64, 64))).all()


def test_parts_of_frames_that_are_no_whole_cell_are_left_out():
    x = torch.randn(1, 3, 4, 19, 22)
    assert MotionStem(3)(x).shape == (1, 23, 3, 4, 5)


def test_the_grid_averages_over_equal_stretches():
    maps = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 12, 12)
    assert on_grid(maps)[0, 0, :, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    thirds = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 1, 3, 12, 12)
    grid = on_grid(thirds)
    assert grid.shape[2:] == GRID
    assert torch.allclose(grid[0, 0, :, 0, 0], torch.tensor([0.0, 2 / 3, 4 / 3, 2.0]))


# ── the networks ─────────────────────────────────────────────────────────────────────────────


def test_the_fixed_part_may_be_computed_before():
    network, x = Motion(3).eval(), torch.randn(2, 3, 4, 16, 16)
    maps = network.fixed_part(x)
    assert maps.shape == (2, 23, *GRID) and not maps.requires_grad
    assert torch.equal(network(maps), network(x))


def test_every_parameter_gets_a_gradient():
    network = Motion(3)
    network(torch.randn(4, 3, 4, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@torch.no_grad()
def test_s3d_with_maps_begins_as_s3d_and_then_sees_them():
    torch.manual_seed(0)
    whole, plain, x = MotionS3D(3), S3D(3), torch.randn(2, 3, 8, 32, 32)
    assert plain.load_state_dict(
        {k: v for k, v in whole.state_dict().items() if k.startswith("features.")}
    )
    assert torch.equal(whole(x), plain(x))
    whole.mix.weight.normal_()
    assert not torch.allclose(whole(x), plain(x))
