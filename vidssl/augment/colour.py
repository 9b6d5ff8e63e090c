"""Colour changes of clips, on the device, in floats of 0..255.

Legend: M clips (or runs of a clip's frames), C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.augment.drawing import ColourDraw
from vidssl.augment.policy import POLICIES, AugmentSpec

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision and PIL
BOX_PASSES = 3  # PIL's


def apply_colour(
    x_MCTHW: Tensor, draws: Sequence[ColourDraw], spec: AugmentSpec = POLICIES["truthful"]
) -> Tensor:
    """Gives clips [M, 3, T, H, W] of floats in 0..255 with their colour changed.

    The clips given may be changed themselves, to save memory.

    Which clips an operation touches is decided on the host, from the draws, so that the device
    never has to be waited for. Order: channel shuffle, jitter in drawn order, gray, blur; with
    `gray_first` gray before jitter.

    Args:
        draws: one for each clip, or as many for each as it has frames, clip by clip.
    """
    each = len(draws) // len(x_MCTHW)
    if each == 1:
        return _change(x_MCTHW, draws, spec)
    frame_MTCtHW = x_MCTHW.unflatten(2, (each, -1)).transpose(1, 2)
    changed = _change(frame_MTCtHW.flatten(0, 1), draws, spec)
    return changed.view(frame_MTCtHW.shape).transpose(1, 2).flatten(2, 3)


def _change(x: Tensor, draws: Sequence[ColourDraw], spec: AugmentSpec) -> Tensor:
    _each(x, [d.channels for d in draws], (0, 1, 2), _permute_channels)
    channels = [d.gray_channel for d in draws]
    if spec.gray_first:
        _each(x, channels, -1, _replicate_channel)
    for place in range(4):
        for number, (name, neutral, operation) in enumerate(JITTER):
            wanted = [getattr(d, name) if d.order[place] == number else neutral for d in draws]
            _each(x, wanted, neutral, operation)
    if not spec.gray_first:
        _each(x, channels, -1, _replicate_channel)
    if spec.blur_kind == "gaussian":
        _each(x, [d.sigma for d in draws], 0.0, gaussian_blur)
    else:
        radii = [box_radius(d.sigma) for d in draws]
        _each(x, radii, 0.0, partial(box_blur, reach=math.ceil(max(radii))))
    return x


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


def box_radius(sigma: float) -> float:
    """Gives the radius of the box filter that, applied three times, is PIL's Gaussian of `sigma`.

    Its fraction is the weight of the two outermost pixels; three such boxes have the Gaussian's
    variance (Gwosdek et al. 2011, extended box filtering).
    """
    variance = sigma**2 / BOX_PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    missing = 3 * variance - whole * (whole + 1)
    return whole + (2 * whole + 1) * missing / (6 * ((whole + 1) ** 2 - variance))


def box_blur(x_MCTHW: Tensor, radius_M: Tensor, reach: int) -> Tensor:
    """Blurs every frame as PIL's GaussianBlur: three boxes along each side, borders repeated.

    Args:
        reach: the largest radius, rounded up.
    """
    clips, channels, time, height, width = x_MCTHW.shape
    offset = torch.arange(-reach, reach + 1, device=x_MCTHW.device, dtype=x_MCTHW.dtype)
    radius_M1 = radius_M.to(x_MCTHW.dtype).view(-1, 1)
    # 1 inside the radius, its fraction at the pixel beyond, 0 outside.
    kernel = (radius_M1 + 1 - offset.abs()).clamp(0, 1) / (2 * radius_M1 + 1)
    planes = x_MCTHW.reshape(clips, channels * time, height, width).transpose(0, 1)
    for shape, padding in (
        ((clips, 1, 1, -1), (reach, reach, 0, 0)),
        ((clips, 1, -1, 1), (0, 0, reach, reach)),
    ):
        for _ in range(BOX_PASSES):
            padded = F.pad(planes, padding, mode="replicate")
            planes = F.conv2d(padded, kernel.view(shape), groups=clips)
    return planes.transpose(0, 1).reshape(x_MCTHW.shape)


def _replicate_channel(x_MCTHW: Tensor, channel_M: Tensor) -> Tensor:
    picked = x_MCTHW[torch.arange(len(x_MCTHW), device=x_MCTHW.device), channel_M]
    return picked.unsqueeze(1).expand_as(x_MCTHW)


def _permute_channels(x_MCTHW: Tensor, channels_M3: Tensor) -> Tensor:
    return x_MCTHW[torch.arange(len(x_MCTHW), device=x_MCTHW.device)[:, None], channels_M3]


# By the number that a draw's order knows them by, with the value that changes nothing.
JITTER: tuple[tuple[str, float, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("brightness", 1.0, adjust_brightness),
    ("contrast", 1.0, adjust_contrast),
    ("saturation", 1.0, adjust_saturation),
    ("hue", 0.0, adjust_hue),
)
