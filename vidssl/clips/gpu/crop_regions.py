"""What a clip covers of a video's frames: a host cuts it out, a device makes the clip of it.

Cutting costs a host little more than decoding; resizing would cost it half as much again.

Legend: N clips of one video, F frames of a sample, T' frames of a clip that differ, C channels,
T frames, H and W pixels, S pixels of the clip's side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import resize_on_device, within
from vidssl.clips.sampler import ClipSampler, DrawnView, FrameIndex
from vidssl.views import get_view


@dataclass(frozen=True)
class Region:
    """What one clip covers of its frames.

    Attributes:
        pixels: uint8 [T', H, W, C]: the frames as stored, cut out, neither resized nor mirrored.
        repeated: how many times the first of them stands before itself at the clip's begin.
        mirrored: whether left and right are to change places.
    """

    pixels: Tensor
    repeated: int
    mirrored: bool


def cut_regions(drawn: DrawnView, memory: Callable[..., Tensor] = torch.empty) -> list[Region]:
    """Decodes a view's frames and cuts each clip's box out of them: N regions.

    Args:
        memory: makes a tensor as torch.empty does.
    """
    frames, boxes = drawn.boxed()
    held = drawn.held
    takers = _takers(held)
    regions: list[Region] = []
    parts: list[tuple[slice, slice]] = []
    into: list[np.ndarray] = []
    for frame, of_frame in zip(frames, takers, strict=True):
        if not regions:
            parts = [within(box, *frame.shape[:2]) for box in boxes]
            for clip, (draw, part) in enumerate(zip(drawn.draws, parts, strict=True)):
                first = int(held.repeated[clip])
                pixels = _memory_for(frame[part], held.where.shape[1] - first, memory)
                regions.append(Region(pixels, first, draw.mirrored))
            into = [region.pixels.numpy() for region in regions]
        for clip, time in of_frame:  # while the frame is in the core's cache
            into[clip][time] = frame[parts[clip]]
    return regions


def _memory_for(part_HWC: np.ndarray, count: int, memory: Callable[..., Tensor]) -> Tensor:
    """Returns memory [T', H, W, C] for so many parts, with channels where they are in the
    part's.
    """
    height, width, channels = part_HWC.shape
    if part_HWC.strides[2] > part_HWC.strides[0]:  # each channel by itself
        planes: Tensor = memory((count, channels, height, width), dtype=torch.uint8)
        return planes.permute(0, 2, 3, 1)
    return memory((count, height, width, channels), dtype=torch.uint8)


def _takers(held: FrameIndex) -> list[list[tuple[int, int]]]:
    """Returns for each of the sample's frames the clips that take it, and as which of theirs."""
    takers: list[list[tuple[int, int]]] = [[] for _ in held.needed]
    for clip, (where_T, first) in enumerate(zip(held.where, held.repeated, strict=True)):
        for time, frame in enumerate(where_T[first:].tolist()):
            takers[frame].append((clip, time))
    return takers


def make_clip(region: Region, sampler: ClipSampler, view: str) -> Tensor:
    """Resizes and mirrors a region where it lies: uint8 [C, T, S, S]."""
    pixels_CTHW = region.pixels.permute(3, 0, 1, 2)
    made = resize_on_device(pixels_CTHW, sampler.clip.size, sampler.augment.resize)
    if region.mirrored and sampler.is_picture_of_motion(view):
        made = made.flip(-1)
    elif region.mirrored:
        made = get_view(view).flip_tensor(made)
    if region.repeated:
        again = made[:, :1].expand(-1, region.repeated, -1, -1)
        made = torch.cat([again, made], dim=1)
    return made
