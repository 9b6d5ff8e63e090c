"""Pairs of pictures whose flow is known exactly: made-up textures that move in known ways.

A texture is a function of continuous coordinates, so no picture is ever interpolated: the second
picture is the texture at each pixel, the first one the texture at each pixel plus its flow.

Legend: H rows, W columns; flow is (u to the right, v downward) in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]
NOISE = 1.0  # standard deviation of the sensor's noise, in grey levels
WAVES = 16.0  # that of the fine structure
SOFT = 0.6  # pixels over which a disc's edge fades


@dataclass(frozen=True)
class Scene:
    """Two grey pictures uint8 [H, W] and the flow float32 [H, W, 2] from the first one."""

    name: str
    before: np.ndarray
    after: np.ndarray
    flow: np.ndarray


def texture(draw: np.random.Generator, height: int, width: int) -> Texture:
    """Returns soft-edged discs of all sizes over one another, with fine structure on all of it."""
    count, side = 60, min(height, width)
    # As many discs above any size as natural pictures have: radius^-3, the smallest drawn last.
    radius = np.sort(side / 2 * (1 + draw.random(count) * 99) ** -0.5)[::-1]
    cx, cy = draw.uniform(-0.1, 1.1, (2, count)) * ((width,), (height,))
    grey = draw.uniform(40, 215, count)
    waves = 16
    length = np.exp(draw.uniform(np.log(side / 14), np.log(side / 2), waves))
    angle, phase = draw.uniform(0, 2 * np.pi, (2, waves))
    kx, ky = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)
    swing = WAVES * length / np.sqrt((length**2).sum() / 2)

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        picture = np.full(np.broadcast(x, y).shape, 128.0)
        for n in range(count):
            beyond = np.hypot(x - cx[n], y - cy[n]) - radius[n]
            picture += (grey[n] - picture) / (1 + np.exp(np.clip(beyond / SOFT, -30, 30)))
        for n in range(waves):
            picture += swing[n] * np.sin(kx[n] * x + ky[n] * y + phase[n])
        return picture

    return at


def scene(
    name: str,
    seed: int,
    height: int,
    width: int,
    ground: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    thing: tuple[float, float, float, float, float] | None = None,
) -> Scene:
    """Makes a pair whose ground moves as told, with a disc that moves by itself before it.

    Args:
        ground: the flow at coordinates from the picture's middle.
        thing: the disc's place in the first picture, its radius and its motion, as shares of the
            short side: (x, y, radius, u, v).
    """
    draw = np.random.default_rng(seed)
    behind, before = (texture(draw, height, width) for _ in range(2))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    u, v = ground(x - width / 2, y - height / 2)
    flow = np.stack(np.broadcast_arrays(u, v), axis=-1).astype(np.float64)
    first, second = behind(x + flow[..., 0], y + flow[..., 1]), behind(x, y)
    if thing is not None:
        side = min(height, width)
        cx, cy, radius, du, dv = (side * share for share in thing)
        here = np.hypot(x - cx, y - cy) < radius
        there = np.hypot(x - cx - du, y - cy - dv) < radius
        first[here] = before(x + du, y + dv)[here]
        second[there] = before(x, y)[there]
        flow[here] = du, dv
    pictures = [
        np.clip(np.rint(picture + draw.normal(0, NOISE, picture.shape)), 0, 255).astype(np.uint8)
        for picture in (first, second)
    ]
    return Scene(name, *pictures, flow.astype(np.float32))


def scenes(height: int, width: int, seed: int = 0) -> list[Scene]:
    """Returns a few pairs at the speed of everyday video: up to a fortieth of the short side."""
    unit = min(height, width) / 96
    turn, zoom = np.deg2rad(1.2), 0.02
    kinds = {
        "drift": ((lambda x, y: (1.3 * unit + 0 * x, -0.6 * unit + 0 * y)), None),
        "turn": (
            lambda x, y: (
                x * np.cos(turn) - y * np.sin(turn) - x,
                x * np.sin(turn) + y * np.cos(turn) - y,
            ),
            None,
        ),
        "zoom": ((lambda x, y: (zoom * x, zoom * y)), None),
        "thing": (
            (lambda x, y: (0.3 * unit + 0 * x, 0 * y)),
            (0.5, 0.45, 0.22, 0.025, 0.01),
        ),
        "waves": (
            lambda x, y: (
                unit * np.sin(y / (14 * unit)),
                0.7 * unit * np.cos(x / (17 * unit)),
            ),
            (0.9, 0.6, 0.15, -0.02, -0.015),
        ),
        "still": ((lambda x, y: (0 * x, 0 * y)), (0.6, 0.5, 0.2, 0.0, 0.022)),
    }
    return [
        scene(name, seed + number, height, width, ground, thing)
        for number, (name, (ground, thing)) in enumerate(kinds.items())
    ]
