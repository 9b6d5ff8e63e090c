"""Renders synthetic clips: patterned shapes that move on a soft, slowly drifting background.

All shapes of a clip move in one of six ways: they bounce, circle, pulse, shake, slide or spin.
Everything else (shapes, patterns, colours, size, place, direction, speed, background, drift) is
drawn at random without knowledge of the motion. So a single frame, a colour histogram or a mean
frame does not tell the motion.

Shapes: T frames, H and W pixels, S side of a sprite, N objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

SIZE = (128, 128)  # width, height
FRAMES = 32
# Pixels; sprites are drawn about twice as large as they appear, against aliasing.
SPRITE, STILL_SPRITE = 96, 64


@dataclass(frozen=True)
class Trajectory:
    """How one object moves: offset in pixels, angle in radians and size factor, [T] each."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


# ── motions ──────────────────────────────────────────────────────────────────────────────────


def _trajectory(
    t: np.ndarray,
    draw: np.random.Generator,
    x: np.ndarray | float = 0.0,
    y: np.ndarray | float = 0.0,
    angle: np.ndarray | float = 0.0,
    scale: np.ndarray | float | None = None,
) -> Trajectory:
    """Returns a trajectory at the times `t`; what a motion does not change stays constant.

    An object that does not pulse has the size of a pulsing one at a random time, so that the sizes
    in one frame do not tell the motion.
    """
    if scale is None:
        scale = _swell(draw, draw.uniform(0, 2 * np.pi))
    return Trajectory(
        *(np.broadcast_to(np.asarray(v, float), t.shape) for v in (x, y, angle, scale))
    )


def _bounce(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Hops on the spot: one parabola after another."""
    phase = (t / draw.uniform(11, 15) + draw.random()) % 1
    height = 4 * phase * (1 - phase)
    return _trajectory(t, draw, y=draw.uniform(0.8, 1.1) * radius * (0.5 - height))


def _circle(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Goes round a small circle and keeps its angle."""
    turn = _turns(t, draw, 15, 20)
    reach = draw.uniform(0.45, 0.65) * radius
    return _trajectory(t, draw, x=reach * np.cos(turn), y=reach * np.sin(turn))


def _pulse(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Grows and shrinks."""
    return _trajectory(t, draw, scale=_swell(draw, _turns(t, draw, 13, 18)))


def _shake(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Moves quickly to and fro along one line."""
    along = draw.uniform(0, 2 * np.pi)
    reach = draw.uniform(0.2, 0.3) * radius * np.sin(_turns(t, draw, 5, 7))
    return _trajectory(t, draw, x=reach * np.cos(along), y=reach * np.sin(along))


def _slide(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Moves along a straight line; `_wrap` lets it return at the opposite side."""
    along = draw.uniform(0, 2 * np.pi)
    way = draw.uniform(0.08, 0.12) * radius * (t - t.mean())
    return _trajectory(t, draw, x=way * np.cos(along), y=way * np.sin(along))


def _spin(t: np.ndarray, draw: np.random.Generator, radius: float) -> Trajectory:
    """Turns about its own centre."""
    return _trajectory(t, draw, angle=_turns(t, draw, 16, 24))


def _turns(t: np.ndarray, draw: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    """Returns the phase, in radians, of a steady rotation of random period, start and direction."""
    period = draw.uniform(shortest, longest) * draw.choice((-1, 1))
    return 2 * np.pi * (t / period + draw.random())


def _swell(draw: np.random.Generator, turn: np.ndarray | float) -> np.ndarray:
    """Returns the size factor of a pulsing object at phase `turn`."""
    return np.exp(draw.uniform(0.3, 0.45) * np.sin(turn))


_MOVES: dict[str, Callable[[np.ndarray, np.random.Generator, float], Trajectory]] = {
    "bounce": _bounce,
    "circle": _circle,
    "pulse": _pulse,
    "shake": _shake,
    "slide": _slide,
    "spin": _spin,
}
MOTIONS: tuple[str, ...] = tuple(_MOVES)


# ── appearance ───────────────────────────────────────────────────────────────────────────────


def _colour(
    draw: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """Draws an RGB colour [3] in 0..255, of any hue."""
    hsv = np.array(
        [draw.uniform(0, 360), draw.uniform(*saturation), draw.uniform(*value)], np.float32
    )
    return 255 * cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0]


def _outline(kind: int, theta: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns the radius of a closed shape, at most 1, at each angle."""
    corners = int(draw.integers(3, 7))
    if kind == 0:
        return np.ones_like(theta)
    if kind == 1:  # polygon with 3 to 6 corners
        sector = np.pi / corners
        return np.cos(sector) / np.cos((theta % (2 * sector)) - sector)
    depth = draw.uniform(0.12, 0.2)  # flower or soft star
    return 1 - depth + depth * np.cos(corners * theta)


def _pattern(kind: int, x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns the share of the second colour, 0..1. With a pattern, a disc visibly turns."""
    fine = draw.uniform(3.5, 6)
    wave = (
        np.sin(fine * x),  # stripes
        np.sin(fine * x) * np.sin(fine * y),  # checks
        np.sin(2 * np.arctan2(y, x)),  # quarters
        x,  # halves
    )[kind]
    return 1 / (1 + np.exp(-12 * wave))


def _sprite(draw: np.random.Generator, bright: bool, side: int = SPRITE) -> np.ndarray:
    """Draws a patterned shape [S, S, 4]: RGB 0..255 times coverage, and coverage 0..1."""
    axis = np.linspace(-1.15, 1.15, side, dtype=np.float32)
    x: np.ndarray
    y: np.ndarray
    x, y = np.meshgrid(axis, axis)
    edge = _outline(int(draw.integers(3)), np.arctan2(y, x), draw)
    cover = np.clip((edge - np.hypot(x, y)) * side / 4 + 0.5, 0, 1)[..., None]
    mix = _pattern(int(draw.integers(4)), x, y, draw)[..., None]
    light, dark = ((0.8, 1.0), (0.45, 0.65)) if bright else ((0.45, 0.6), (0.1, 0.25))
    rgb = (1 - mix) * _colour(draw, (0.4, 1.0), light) + mix * _colour(draw, (0.4, 1.0), dark)
    return np.concatenate([rgb * cover, cover], -1).astype(np.float32)


def _background(
    draw: np.random.Generator, size: tuple[int, int], unit: float, bright: bool
) -> np.ndarray:
    """Draws a soft picture [H, W, 3]: sixteen colours that blend into each other, under pale discs.

    Because of the discs, which lie still, two backgrounds differ in more ways than the moving
    objects do.
    """
    value = (0.65, 1.0) if bright else (0.05, 0.4)
    colours = np.stack([_colour(draw, (0.1, 0.9), value) for _ in range(16)])
    picture = cv2.resize(colours.reshape(4, 4, 3), size, interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    for _ in range(int(draw.integers(8, 13))):
        distance = np.hypot(x - draw.uniform(0, size[0]), y - draw.uniform(0, size[1]))
        cover = np.clip((draw.uniform(0.06, 0.22) * unit - distance) / 3 + 0.5, 0, 1)[..., None]
        cover *= draw.uniform(0.35, 0.75)
        tint = _colour(draw, (0.1, 0.6), (0.65, 1.0) if bright else (0.15, 0.55))
        picture = (1 - cover) * picture + cover * tint
    return picture.astype(np.float32)


def _still_life(
    draw: np.random.Generator, size: tuple[int, int], radius: float, bright: bool
) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Draws smaller shapes that lie still behind the moving ones.

    How much a moving shape blurs the mean frame depends on its motion. Sharp shapes of the same
    kind in random places hide that.

    Returns:
        Place, sprite, angle and radius of each.
    """
    return [
        (
            draw.uniform(0, 1, 2) * size,
            _sprite(draw, bright, STILL_SPRITE),
            draw.uniform(0, 2 * np.pi),
            draw.uniform(0.45, 0.75) * radius,
        )
        for _ in range(int(draw.integers(8, 12)))
    ]


def _homes(
    draw: np.random.Generator, count: int, size: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """Draws places for `count` objects [N, 2]; returns them and the largest radius that fits."""
    width, height = size
    radius = min(width, height) * (0.25, 0.19, 0.16)[count - 1]
    columns = np.linspace(0, width, count + 1)
    x = draw.uniform(columns[:-1] + 0.3 * width / count, columns[1:] - 0.3 * width / count)
    y = draw.uniform(0.3 * height, 0.7 * height, count)
    return np.stack([x, y], 1), radius


# ── frames ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Scene:
    """All that one seed shows, whatever moves.

    Attributes:
        homes: of the moving objects [N, 2], and `tilt`, their angle in radians [N].
        sprites: one for each of them.
        radius: of the objects, in pixels.
        drift: of everything together, in pixels per frame [2].
        margin: of `wide`, the background with what lies still, around the frame.
    """

    homes: np.ndarray
    tilt: np.ndarray
    sprites: list[np.ndarray]
    radius: float
    drift: np.ndarray
    margin: int
    wide: np.ndarray


@lru_cache(maxsize=2)  # the clips of one scene come one after another
def _scene(seed: int, frames: int, size: tuple[int, int]) -> _Scene:
    draw = np.random.default_rng([seed, 0])
    bright = bool(draw.integers(2))
    homes, radius = _homes(draw, int(draw.integers(1, 4)), size)
    radius *= draw.uniform(0.8, 1.0)
    sprites = [_sprite(draw, not bright) for _ in homes]
    tilt = draw.uniform(0, 2 * np.pi, len(homes))
    drift = draw.uniform(-0.25, 0.25, 2)
    still = _still_life(draw, size, radius, not bright)
    margin = int(np.ceil(0.25 * frames)) + 1
    wide = _background(draw, (size[0] + 2 * margin, size[1] + 2 * margin), min(size), bright)
    for place, sprite, angle, reach in still:
        _paint(wide, sprite, place + margin, angle, reach)
    return _Scene(homes, tilt, sprites, radius, drift, margin, wide)


def render_clip(
    motion: str, seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """Renders a clip, RGB uint8 [T, H, W, 3]; the same arguments give the same clip.

    One seed is one appearance: `render_clip("spin", 7)` and `render_clip("slide", 7)` show the same
    objects on the same background.

    Args:
        motion: one of :data:`MOTIONS`.
        frames: T.
        size: (width, height) in pixels.

    Raises:
        ValueError: there is no such motion.
    """
    if motion not in MOTIONS:
        raise ValueError(f"no motion {motion!r}: there are {', '.join(MOTIONS)}")
    scene = _scene(seed, frames, size)
    draw = np.random.default_rng([seed, 1 + MOTIONS.index(motion)])
    t: np.ndarray = np.arange(frames, dtype=float)
    paths = [_MOVES[motion](t, draw, scene.radius) for _ in scene.homes]
    clip: np.ndarray = np.empty((frames, size[1], size[0], 3), np.uint8)
    for i in range(frames):
        way = scene.drift * (i - frames / 2)
        corner = scene.margin - way
        view = np.array([[1, 0, corner[0]], [0, 1, corner[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = cv2.warpAffine(scene.wide, view, size, flags=flags)
        for home, sprite, tilt, path in zip(
            scene.homes, scene.sprites, scene.tilt, paths, strict=True
        ):
            centre = _wrap(
                home + way + (path.x[i], path.y[i]), scene.radius * path.scale.max(), size
            )
            _paint(frame, sprite, centre, tilt + path.angle[i], scene.radius * path.scale[i])
        clip[i] = np.clip(frame + 0.5, 0, 255)
    return clip


def _wrap(centre: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """Returns a centre such that what leaves the frame on one side enters on the other."""
    room = np.asarray(size) + 2.2 * radius
    return (centre + 1.1 * radius) % room - 1.1 * radius


def _paint(
    frame: np.ndarray, sprite: np.ndarray, centre: np.ndarray, angle: float, radius: float
) -> None:
    """Draws a sprite of radius `radius` pixels, turned by `angle`, over the frame [H, W, 3]."""
    (x, y), (height, width) = centre, frame.shape[:2]
    reach = 1.1 * radius + 1  # only the part of the frame that the shape can touch
    left, top = max(math.floor(x - reach), 0), max(math.floor(y - reach), 0)
    right, bottom = min(math.ceil(x + reach) + 1, width), min(math.ceil(y + reach) + 1, height)
    if left >= right or top >= bottom:
        return
    side = len(sprite)
    zoom = radius * 2.3 / side
    cos, sin, middle = zoom * np.cos(angle), zoom * np.sin(angle), (side - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, x - left - (cos * middle - sin * middle)],
            [sin, cos, y - top - (sin * middle + cos * middle)],
        ]
    )
    layer = cv2.warpAffine(sprite, matrix, (right - left, bottom - top))
    part = frame[top:bottom, left:right]
    # OpenCV on all three channels at once is many times as fast as NumPy on so small an array.
    left_over = 1 - layer[..., 3]
    cv2.multiply(part, cv2.merge([left_over] * 3), dst=part)
    cv2.add(part, cv2.cvtColor(layer, cv2.COLOR_BGRA2BGR), dst=part)
