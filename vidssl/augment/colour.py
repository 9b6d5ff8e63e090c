"""Changes the colour of clips, in floats of 0..255: batched on CUDA, clip by clip on a CPU.

The operations work in place. Legend: M clips (or runs of a clip's frames),
C channels, T frames, H and W pixels, K taps of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.augment.policy import POLICIES, AugmentSpec
from vidssl.augment.random_draws import ColourDraw

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision and PIL
BOX_PASSES = 3  # PIL's
BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE}
GAUSSIAN_REACH = 3  # of the largest sigma that may be drawn


def apply_colour(
    x_MCTHW: Tensor, draws: Sequence[ColourDraw], spec: AugmentSpec = POLICIES["truthful"]
) -> Tensor:
    """Changes the colour of clips [M, 3, T, H, W] of floats in 0..255 in place, and returns them.

    Which clips an operation changes is decided on the host, from the draws, so that the host never
    waits for the device. Order: channel shuffle, jitter in drawn order, gray, blur; with
    `gray_first` gray before jitter.

    Args:
        draws: one for each clip, or as many for each as it has frames, clip by clip.
    """
    each = len(draws) // len(x_MCTHW)
    if not x_MCTHW.is_cuda:
        # A clip stays in the core's cache through all its changes; a batch would not.
        for clip, x_1CTHW in enumerate(x_MCTHW.split(1)):
            own = draws[clip * each : (clip + 1) * each]
            if len(set(own)) == 1:
                _change(x_1CTHW, own[:1], spec)
            else:
                _change(_frames(x_1CTHW), own, spec)
    elif each == 1:
        _change(x_MCTHW, draws, spec)
    else:
        frame_FC1HW = _frames(x_MCTHW)
        _change(frame_FC1HW, draws, spec)
        x_MCTHW.copy_(frame_FC1HW.squeeze(2).unflatten(0, (-1, each)).transpose(1, 2))
    return x_MCTHW


def _frames(x_MCTHW: Tensor) -> Tensor:
    """Returns every frame as a clip of its own [M·T, C, 1, H, W]; for M = 1 memory is shared."""
    return x_MCTHW.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _change(x: Tensor, draws: Sequence[ColourDraw], spec: AugmentSpec) -> None:
    _each(x, [d.channels for d in draws], (0, 1, 2), permute_channels)
    channels = [d.gray_channel for d in draws]
    if spec.gray_first:
        _each(x, channels, -1, replicate_channel)
    for place in range(4):
        for number, (name, neutral, operation) in enumerate(JITTER):
            wanted = [getattr(d, name) if d.order[place] == number else neutral for d in draws]
            _each(x, wanted, neutral, operation)
    if not spec.gray_first:
        _each(x, channels, -1, replicate_channel)
    if spec.blur_kind == "gaussian":
        reach = math.ceil(GAUSSIAN_REACH * spec.blur_sigma_max)
        _each(x, [d.sigma for d in draws], 0.0, partial(gaussian_blur, reach=reach))
    else:
        radii = [box_radius(d.sigma) for d in draws]
        _each(x, radii, 0.0, partial(box_blur, reach=math.ceil(max(radii))))


def _each(
    x: Tensor, values: list, neutral: object, operation: Callable[[Tensor, Any], Tensor]
) -> None:
    """Applies an operation to the clips whose value is not the neutral one."""
    if len(values) == 1:
        if values[0] != neutral:
            operation(x, values[0])  # with a plain number no clip is copied
        return
    rows = [i for i, value in enumerate(values) if value != neutral]
    if rows:
        index = torch.tensor(rows, device=x.device)
        x[index] = operation(x[index], torch.tensor([values[i] for i in rows], device=x.device))


# ── operations: in place, with one number for each of M clips, or one number for all ─────────


def _per_clip(number: Tensor | float) -> Any:
    if isinstance(number, Tensor):
        return number.to(torch.float32).view(-1, 1, 1, 1, 1)
    return number


def luminance(x_MCTHW: Tensor) -> Tensor:
    """Returns the grey value [M, 1, T, H, W]."""
    red, green, blue = x_MCTHW.unbind(1)
    weighted = GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue
    return weighted.unsqueeze(1)


def adjust_brightness(x_MCTHW: Tensor, factor: Tensor | float) -> Tensor:
    """Scales values by the clip's factor."""
    return x_MCTHW.mul_(_per_clip(factor)).clamp_(0, 255)


def adjust_contrast(x_MCTHW: Tensor, factor: Tensor | float) -> Tensor:
    """Moves values away from (or towards) the mean grey of their own frame."""
    mean = luminance(x_MCTHW).mean(dim=(3, 4), keepdim=True)
    return _away_from(mean, x_MCTHW, factor)


def adjust_saturation(x_MCTHW: Tensor, factor: Tensor | float) -> Tensor:
    """Moves values away from (or towards) their own grey."""
    return _away_from(luminance(x_MCTHW), x_MCTHW, factor)


def _away_from(start: Tensor, x_MCTHW: Tensor, factor: Tensor | float) -> Tensor:
    moved = torch.lerp(start.expand_as(x_MCTHW), x_MCTHW, _per_clip(factor), out=x_MCTHW)
    return moved.clamp_(0, 255)


def adjust_hue(x_MCTHW: Tensor, shift: Tensor | float) -> Tensor:
    """Rotates the hue by a fraction of a full turn; value and saturation (HSV) stay the same."""
    value, _ = x_MCTHW.max(1, keepdim=True)
    chroma = value - x_MCTHW.amin(1, keepdim=True)
    red, green, blue = x_MCTHW.split(1, dim=1)
    safe = chroma.clamp(min=1e-6)
    # Hue in sixths of a turn, by which channel is the largest.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * _per_clip(torch.as_tensor(shift))
    for channel, place in zip((red, green, blue), (5.0, 3.0, 1.0), strict=True):
        k = torch.remainder(place + hue, 6)
        torch.sub(value, chroma * torch.minimum(k, 4 - k).clamp_(0, 1), out=channel)
    return x_MCTHW


def gaussian_blur(x_MCTHW: Tensor, sigma: Tensor | float, reach: int) -> Tensor:
    """Blurs every frame with its clip's Gaussian, mirrored at the border.

    Args:
        reach: radius of the filter in pixels; less where the picture is smaller.
    """
    # Reflection cannot reach past the picture, so the radius ends there too.
    radius = max(1, min(reach, *(side - 1 for side in x_MCTHW.shape[3:])))
    offset, sigma_M1 = _offsets(x_MCTHW, radius), _column(x_MCTHW, sigma)
    kernel = torch.exp(-0.5 * (offset / sigma_M1) ** 2)
    return _filter(x_MCTHW, kernel / kernel.sum(1, keepdim=True), "reflect")


def box_radius(sigma: float) -> float:
    """Returns the radius of the box filter that, applied three times, is PIL's Gaussian of `sigma`.

    Its fraction is the weight of the two outermost pixels; three such boxes have the Gaussian's
    variance (Gwosdek et al. 2011, extended box filtering).
    """
    variance = sigma**2 / BOX_PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    missing = 3 * variance - whole * (whole + 1)
    return whole + (2 * whole + 1) * missing / (6 * ((whole + 1) ** 2 - variance))


def box_blur(x_MCTHW: Tensor, radius: Tensor | float, reach: int) -> Tensor:
    """Blurs every frame as PIL's GaussianBlur: three box filters a side, borders repeated.

    Args:
        reach: the largest radius, rounded up.
    """
    offset, radius_M1 = _offsets(x_MCTHW, reach), _column(x_MCTHW, radius)
    # 1 inside the radius, its fraction at the pixel beyond, 0 outside.
    kernel = (radius_M1 + 1 - offset.abs()).clamp(0, 1) / (2 * radius_M1 + 1)
    return _filter(x_MCTHW, kernel, "replicate", BOX_PASSES)


def _offsets(like: Tensor, reach: int) -> Tensor:
    return torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)


def _column(like: Tensor, number: Tensor | float) -> Tensor:
    return torch.as_tensor(number, device=like.device, dtype=like.dtype).view(-1, 1)


def _filter(x_MCTHW: Tensor, taps_MK: Tensor, border: str, passes: int = 1) -> Tensor:
    """Applies each clip's filter along both sides of every frame, `passes` times, in place."""
    apply = filter_at_once if x_MCTHW.is_cuda else filter_by_planes
    return apply(x_MCTHW, taps_MK, border, passes)


def filter_at_once(x_MCTHW: Tensor, taps_MK: Tensor, border: str, passes: int) -> Tensor:
    """Filters all frames together, as convolutions."""
    clips, channels, time, height, width = x_MCTHW.shape
    reach = taps_MK.shape[1] // 2
    planes = x_MCTHW.reshape(clips, channels * time, height, width).transpose(0, 1)
    for shape, padding in (
        ((clips, 1, 1, -1), (reach, reach, 0, 0)),
        ((clips, 1, -1, 1), (0, 0, reach, reach)),
    ):
        for _ in range(passes):
            padded = F.pad(planes, padding, mode=border)
            planes = F.conv2d(padded, taps_MK.view(shape), groups=clips)
    return x_MCTHW.copy_(planes.transpose(0, 1).reshape(x_MCTHW.shape))


def filter_by_planes(x_MCTHW: Tensor, taps_MK: Tensor, border: str, passes: int) -> Tensor:
    """Filters plane after plane by OpenCV: 60 times faster on a CPU core than convolutions."""
    for clip_CTHW, taps_K in zip(x_MCTHW.numpy(), taps_MK.numpy(), strict=True):
        for place in np.ndindex(clip_CTHW.shape[:2]):
            plane_HW = clip_CTHW[place]
            for _ in range(passes):
                cv2.sepFilter2D(
                    plane_HW, -1, taps_K, taps_K, dst=plane_HW, borderType=BORDERS[border]
                )
    return x_MCTHW


def replicate_channel(x_MCTHW: Tensor, channel: Tensor | int) -> Tensor:
    """Sets all three channels to the values of the clip's chosen channel."""
    clips = torch.arange(len(x_MCTHW), device=x_MCTHW.device)
    return x_MCTHW.copy_(x_MCTHW[clips, channel].unsqueeze(1).expand_as(x_MCTHW))


def permute_channels(x_MCTHW: Tensor, channels: Tensor | tuple[int, int, int]) -> Tensor:
    """Puts the channels [M, 3] in the clip's order."""
    if isinstance(channels, tuple):
        return x_MCTHW.copy_(x_MCTHW[:, list(channels)])
    order_M3 = channels.view(-1, 3)
    clips = torch.arange(len(x_MCTHW), device=x_MCTHW.device)
    return x_MCTHW.copy_(x_MCTHW[clips[:, None], order_M3])


# In the numbering of ColourDraw.order; each with the value that changes nothing.
JITTER: tuple[tuple[str, float, Callable[[Tensor, Any], Tensor]], ...] = (
    ("brightness", 1.0, adjust_brightness),
    ("contrast", 1.0, adjust_contrast),
    ("saturation", 1.0, adjust_saturation),
    ("hue", 0.0, adjust_hue),
)
