"""Draws the augmentation of training clips: crop, mirroring and colour changes.

All random choices become plain numbers here, which :mod:`vidssl.augment.crop_resize` and
:mod:`vidssl.augment.colour` then apply. The order of the draws must not change: results depend on
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidssl.augment.policy import AugmentSpec


@dataclass(frozen=True)
class Box:
    """A crop in fractions of the frame's width and height, for views of any size."""

    left: float
    top: float
    width: float
    height: float


WHOLE_FRAME = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class ColourDraw:
    """The colour changes of a clip or of a frame; the defaults change nothing."""

    order: tuple[int, int, int, int] = (0, 1, 2, 3)
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    gray_channel: int = -1
    sigma: float = 0.0
    channels: tuple[int, int, int] = (0, 1, 2)


@dataclass(frozen=True)
class ClipDraw:
    """All that was drawn for one clip of one view, except its frames.

    Attributes:
        boxes: one crop, or several candidates of which the one with the most activity is taken.
        colour: one for the whole clip, or one for each of its frames.
    """

    boxes: tuple[Box, ...]
    mirrored: bool
    colour: tuple[ColourDraw, ...]


@dataclass(frozen=True)
class ClipTimes:
    """How the clips of a video are taken.

    Attributes:
        one: whether all clips have the same frames.
        strong: for each clip, whether its colour may be changed.
    """

    one: bool
    strong: tuple[bool, ...]


def draw_clip_times(spec: AugmentSpec, draw: np.random.Generator, clips: int) -> ClipTimes:
    """Draws whether clips have the same frames, and which of them may be changed in colour."""
    if clips == 2 and spec.one_clip > 0 and draw.random() < spec.one_clip:
        first = bool(draw.random() < 0.5)
        return ClipTimes(True, (first, not first))
    if spec.strong == 1:
        return ClipTimes(False, (True,) * clips)
    return ClipTimes(False, tuple(bool(draw.random() < spec.strong) for _ in range(clips)))


def draw_views(
    spec: AugmentSpec,
    draw: np.random.Generator,
    aspects: Mapping[str, float],
    kinds: Mapping[str, str],
    strong: Sequence[bool],
    frames: int,
) -> dict[str, list[ClipDraw]]:
    """Draws the clips of a video in all views.

    Args:
        aspects: width over height of each view's frames.
        kinds: of each view (:attr:`vidssl.views.View.kind`).
        strong: for each clip, whether its colour may be changed.
        frames: of a clip.
    """
    views: dict[str, list[ClipDraw]] = {}
    for view, aspect in aspects.items():
        if spec.shared and views:
            first = next(iter(views.values()))
            views[view] = [redraw_gray(spec, draw, clip) for clip in first]
        else:
            kind = kinds[view]
            views[view] = [draw_clip(spec, draw, aspect, s, frames, kind) for s in strong]
    return views


def draw_clip(
    spec: AugmentSpec,
    draw: np.random.Generator,
    aspect: float,
    strong: bool = True,
    frames: int = 1,
    kind: str = "film",
) -> ClipDraw:
    """Draws one clip's augmentation for frames whose width over height is `aspect`.

    Args:
        strong: its colour may be changed.
        frames: of the clip, where something is drawn for each.
        kind: of the view.
    """
    film = kind == "film"
    if film or not spec.crop_candidates:
        boxes: tuple[Box, ...] = (draw_box(spec, draw, aspect),)
    else:
        share = spec.crop_square_still if kind == "still" else spec.crop_square
        boxes = tuple(draw_square(share, draw, aspect) for _ in range(spec.crop_candidates))
    mirrored = bool(draw.random() < spec.flip) and (film or spec.motion_mirrored)
    return ClipDraw(boxes, mirrored, draw_colours(spec, draw, strong, frames))


# ── where in the frame ───────────────────────────────────────────────────────────────────────


def draw_box(spec: AugmentSpec, draw: np.random.Generator, aspect: float) -> Box:
    """Draws a crop by the spec's `crop`, or returns its `crop_fallback` where none fits."""
    if spec.crop == "square":
        return draw_square(spec.crop_square, draw, aspect)
    for _ in range(spec.crop_attempts):
        area = draw.uniform(spec.crop_area_min, spec.crop_area_max)
        ratio = draw_ratio(spec, draw)
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        if width <= 1 and height <= 1:
            return _somewhere(draw, width, height)
    return WHOLE_FRAME if spec.crop_fallback == "whole" else centre_square(aspect)


def draw_square(share: float, draw: np.random.Generator, aspect: float) -> Box:
    """Draws the place of a square whose side is `share` of the short side."""
    square = centre_square(aspect, share)
    return _somewhere(draw, square.width, square.height)


def draw_ratio(spec: AugmentSpec, draw: np.random.Generator) -> float:
    """Draws a crop's width over its height, in pixels."""
    low, high = spec.crop_ratio_min, spec.crop_ratio_max
    if spec.crop_ratio == "log-uniform":
        return math.exp(draw.uniform(math.log(low), math.log(high)))
    ratio = draw.uniform(low, high)
    return 1 / ratio if draw.random() < 0.5 else ratio


def _somewhere(draw: np.random.Generator, width: float, height: float) -> Box:
    return Box(draw.uniform(0, 1 - width), draw.uniform(0, 1 - height), width, height)


def centre_square(aspect: float, share: float = 1.0) -> Box:
    """Returns the centred square whose side is `share` of the frame's short side."""
    width, height = share * min(1.0, 1 / aspect), share * min(1.0, aspect)
    return Box((1 - width) / 2, (1 - height) / 2, width, height)


# ── colour ───────────────────────────────────────────────────────────────────────────────────


def draw_colours(
    spec: AugmentSpec, draw: np.random.Generator, strong: bool, frames: int
) -> tuple[ColourDraw, ...]:
    """Draws a clip's colour changes: one draw, or where `per_frame` says so one for each frame."""
    if spec.per_frame == "nothing":
        return (draw_colour(spec, draw) if strong else ColourDraw(),)
    if not strong:
        return (ColourDraw(),) * frames
    if spec.per_frame == "colour":
        return tuple(draw_colour(spec, draw) for _ in range(frames))
    return _gray_anew(draw, (draw_colour(spec, draw),) * frames)


def redraw_gray(spec: AugmentSpec, draw: np.random.Generator, clip: ClipDraw) -> ClipDraw:
    """Returns a clip's draw for another view: the same, but grey channels drawn per frame anew."""
    if spec.per_frame != "gray-channel":
        return clip
    return replace(clip, colour=_gray_anew(draw, clip.colour))


def _gray_anew(draw: np.random.Generator, colour: tuple[ColourDraw, ...]) -> tuple[ColourDraw, ...]:
    if colour[0].gray_channel < 0:
        return colour
    channels = draw.integers(3, size=len(colour)).tolist()
    return tuple(replace(c, gray_channel=n) for c, n in zip(colour, channels, strict=True))


def draw_colour(spec: AugmentSpec, draw: np.random.Generator) -> ColourDraw:
    """Draws the colour changes of one clip, or of one frame."""
    jittered = draw.random() < spec.jitter
    order = draw.permutation(4)
    factors = [
        draw.uniform(max(0.0, 1 - reach), 1 + reach)
        for reach in (spec.brightness, spec.contrast, spec.saturation)
    ]
    hue = draw.uniform(-spec.hue, spec.hue)
    gray, blurred, shuffled = draw.random(3) < (spec.gray, spec.blur, spec.channel_shuffle)
    channel = int(draw.integers(3))
    sigma = draw.uniform(spec.blur_sigma_min, spec.blur_sigma_max)
    channels = draw.permutation(3)
    jitter = (
        dict(
            order=tuple(order.tolist()),
            brightness=factors[0],
            contrast=factors[1],
            saturation=factors[2],
            hue=hue,
        )
        if jittered
        else {}
    )
    return ColourDraw(
        **jitter,
        gray_channel=channel if gray else -1,
        sigma=sigma if blurred else 0.0,
        channels=tuple(channels.tolist()) if shuffled else (0, 1, 2),
    )
