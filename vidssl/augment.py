"""Augmentation: geometry on uint8 frames in the loader's threads, colour on the device.

All chance is drawn once per clip into plain numbers (:class:`ClipDraw`), and what is drawn for a
clip holds for all of its frames and views. Only views that say so have their colour touched.

Legend: M clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision and PIL
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class AugmentSpec:
    """What may be drawn for a training clip. Defaults: CoCLR's ranges (its dataset code).

    Attributes:
        crop_area_min, crop_area_max: share of the frame's area that a crop covers.
        crop_ratio_min, crop_ratio_max: its width over its height.
        flip, jitter, gray, blur, channel_shuffle: probabilities per clip.
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - x), 1 + x].
        hue: shift drawn from [-x, x] of a full turn.
        blur_sigma_min, blur_sigma_max: in pixels of the network's input.
    """

    crop_area_min: float = 0.2
    crop_area_max: float = 1.0
    crop_ratio_min: float = 3 / 4
    crop_ratio_max: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma_min: float = 0.1
    blur_sigma_max: float = 2.0
    channel_shuffle: float = 0.0


@dataclass(frozen=True)
class Box:
    """A crop in shares of the frame's width and height, so that views of other sizes share it."""

    left: float
    top: float
    width: float
    height: float


WHOLE_FRAME = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class ColourDraw:
    """The colour changes of one clip; the defaults change nothing."""

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
    """All that was drawn for one clip beside its place in time."""

    box: Box
    mirrored: bool
    colour: ColourDraw


# ── drawing ──────────────────────────────────────────────────────────────────────────────────


def draw_clip(spec: AugmentSpec, draw: np.random.Generator, aspect: float) -> ClipDraw:
    """Draws one clip's augmentation for frames whose width over height is `aspect`."""
    return ClipDraw(
        box=draw_box(spec, draw, aspect),
        mirrored=bool(draw.random() < spec.flip),
        colour=draw_colour(spec, draw),
    )


def draw_box(spec: AugmentSpec, draw: np.random.Generator, aspect: float) -> Box:
    """Draws a crop of random area and ratio; the largest centred square if none fits."""
    for _ in range(CROP_ATTEMPTS):
        area = draw.uniform(spec.crop_area_min, spec.crop_area_max)
        ratio = math.exp(draw.uniform(math.log(spec.crop_ratio_min), math.log(spec.crop_ratio_max)))
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        if width <= 1 and height <= 1:
            return Box(draw.uniform(0, 1 - width), draw.uniform(0, 1 - height), width, height)
    return centre_square(aspect)


def centre_square(aspect: float, share: float = 1.0) -> Box:
    """Gives the centred square whose side is `share` of the frame's short side."""
    width, height = share * min(1.0, 1 / aspect), share * min(1.0, aspect)
    return Box((1 - width) / 2, (1 - height) / 2, width, height)


def draw_colour(spec: AugmentSpec, draw: np.random.Generator) -> ColourDraw:
    """Draws one clip's colour changes."""
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


# ── geometry, on the host ────────────────────────────────────────────────────────────────────


def crop_resize(frames_THWC: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Gives the box of every frame as a square: uint8 [T, H, W, C] → [T, size, size, C].

    Shrinking averages over area, which does not alias; growing is bilinear.
    """
    time, height, width, channels = frames_THWC.shape
    left, right = _pixels(box.left, box.width, width)
    top, bottom = _pixels(box.top, box.height, height)
    shrinks = right - left >= size and bottom - top >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((time, size, size, channels), np.uint8)
    for t in range(time):
        cut = frames_THWC[t, top:bottom, left:right]
        out[t] = cv2.resize(cut, (size, size), interpolation=method).reshape(size, size, channels)
    return out


def _pixels(begin: float, extent: float, size: int) -> tuple[int, int]:
    first = min(round(begin * size), size - 1)
    return first, min(max(first + round(extent * size), first + 1), size)


# ── colour, on the device ────────────────────────────────────────────────────────────────────


def apply_colour(x_MCTHW: Tensor, draws: Sequence[ColourDraw]) -> Tensor:
    """Applies each clip's colour changes to clips [M, 3, T, H, W] of floats in 0..255, in place.

    Which clips an operation touches is decided on the host, from the draws, so that the device
    never has to be waited for. Order: channel shuffle, jitter in drawn order, gray, blur.
    """
    _each(x_MCTHW, [d.channels for d in draws], (0, 1, 2), _permute_channels)
    operations: tuple[tuple[str, float, Callable[[Tensor, Tensor], Tensor]], ...] = (
        ("brightness", 1.0, adjust_brightness),
        ("contrast", 1.0, adjust_contrast),
        ("saturation", 1.0, adjust_saturation),
        ("hue", 0.0, adjust_hue),
    )
    for place in range(4):
        for number, (name, neutral, operation) in enumerate(operations):
            wanted = [getattr(d, name) if d.order[place] == number else neutral for d in draws]
            _each(x_MCTHW, wanted, neutral, operation)
    _each(x_MCTHW, [d.gray_channel for d in draws], -1, _replicate_channel)
    _each(x_MCTHW, [d.sigma for d in draws], 0.0, gaussian_blur)
    return x_MCTHW


def _each(
    x: Tensor, values: list, neutral: object, operation: Callable[[Tensor, Tensor], Tensor]
) -> None:
    rows = [i for i, value in enumerate(values) if value != neutral]
    if rows:
        index = torch.tensor(rows, device=x.device)
        x[index] = operation(x[index], torch.tensor([values[i] for i in rows], device=x.device))


def _per_clip(factor_M: Tensor) -> Tensor:
    return factor_M.to(torch.float32).view(-1, 1, 1, 1, 1)


def luminance(x_MCTHW: Tensor) -> Tensor:
    """Gives the grey value [M, 1, T, H, W]."""
    red, green, blue = x_MCTHW.unbind(1)
    weighted = GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue
    return weighted.unsqueeze(1)


def adjust_brightness(x_MCTHW: Tensor, factor_M: Tensor) -> Tensor:
    """Scales values by the clip's factor."""
    return (x_MCTHW * _per_clip(factor_M)).clamp_(0, 255)


def adjust_contrast(x_MCTHW: Tensor, factor_M: Tensor) -> Tensor:
    """Moves values away from (or towards) the mean grey of their own frame."""
    mean = luminance(x_MCTHW).mean(dim=(3, 4), keepdim=True)
    return torch.lerp(mean.expand_as(x_MCTHW), x_MCTHW, _per_clip(factor_M)).clamp_(0, 255)


def adjust_saturation(x_MCTHW: Tensor, factor_M: Tensor) -> Tensor:
    """Moves values away from (or towards) their own grey."""
    grey = luminance(x_MCTHW).expand_as(x_MCTHW)
    return torch.lerp(grey, x_MCTHW, _per_clip(factor_M)).clamp_(0, 255)


def adjust_hue(x_MCTHW: Tensor, shift_M: Tensor) -> Tensor:
    """Turns the hue by the clip's share of a full turn; HSV's value and saturation stay."""
    value, _ = x_MCTHW.max(1)
    chroma = value - x_MCTHW.min(1).values
    red, green, blue = x_MCTHW.unbind(1)
    safe = chroma.clamp(min=1e-6)
    # Hue in sixths of a turn, by which channel is the largest.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * shift_M.to(hue.dtype).view(-1, 1, 1, 1)
    channels = []
    for place in (5.0, 3.0, 1.0):
        k = torch.remainder(place + hue, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1)


def gaussian_blur(x_MCTHW: Tensor, sigma_M: Tensor) -> Tensor:
    """Blurs every frame with its clip's Gaussian, cut at three sigma, mirrored at the border."""
    clips, channels, time, height, width = x_MCTHW.shape
    # Reflection cannot reach past the picture, so the radius ends there too.
    reach = math.ceil(3 * float(sigma_M.max())) if sigma_M.device.type == "cpu" else 6
    radius = max(1, min(reach, height - 1, width - 1))
    offset = torch.arange(-radius, radius + 1, device=x_MCTHW.device, dtype=x_MCTHW.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma_M.to(x_MCTHW.dtype).view(-1, 1)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    planes = x_MCTHW.reshape(clips, channels * time, height, width).transpose(0, 1)
    padded = F.pad(planes, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(clips, 1, 1, -1), groups=clips)
    blurred = F.conv2d(rows, kernel.view(clips, 1, -1, 1), groups=clips)
    return blurred.transpose(0, 1).reshape(x_MCTHW.shape)


def _replicate_channel(x_MCTHW: Tensor, channel_M: Tensor) -> Tensor:
    picked = x_MCTHW[torch.arange(len(x_MCTHW), device=x_MCTHW.device), channel_M]
    return picked.unsqueeze(1).expand_as(x_MCTHW)


def _permute_channels(x_MCTHW: Tensor, channels_M3: Tensor) -> Tensor:
    return x_MCTHW[torch.arange(len(x_MCTHW), device=x_MCTHW.device)[:, None], channels_M3]
