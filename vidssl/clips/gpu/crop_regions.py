"""Crops of a video's frames: the host cuts them out, the device resizes and mirrors them.

Cutting costs a host little more than decoding; resizing would cost it half as much again.

Legend: N clips of one video, F frames of a sample, T' different frames of a clip, C channels,
T frames, H and W pixels, S pixels of the clip's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import box_slices, resize_on_device
from vidssl.clips.sampler import ClipSampler, DrawnView, FrameIndex, choose_boxes
from vidssl.views import get_view


@dataclass(frozen=True)
class Region:
    """The crop of one clip's frames, neither resized nor mirrored yet.

    Attributes:
        pixels: uint8 [T', H, W, C], as stored.
        repeated: how many times the first frame is repeated at the beginning of the clip.
        mirrored: whether left and right are to be exchanged.
    """

    pixels: Tensor
    repeated: int
    mirrored: bool


def cut_regions(
    drawn: DrawnView, frames: Iterable[np.ndarray], memory: Callable[..., Tensor] = torch.empty
) -> list[Region]:
    """Cuts each clip's crop out of a view's frames: N regions.

    Args:
        frames: those of `drawn.frame_index.needed`, in order, uint8 [H, W, C] each.
        memory: makes a tensor as torch.empty does.
    """
    frames, boxes = choose_boxes(drawn, frames)
    index = drawn.frame_index
    regions: list[Region] = []
    parts: list[tuple[slice, slice]] = []
    into: list[np.ndarray] = []
    for frame, uses in zip(frames, _uses_of_frames(index), strict=True):
        if not regions:
            parts = [box_slices(box, *frame.shape[:2]) for box in boxes]
            for clip, (draw, part) in enumerate(zip(drawn.draws, parts, strict=True)):
                first = int(index.repeated[clip])
                pixels = _memory_for(frame[part], index.where.shape[1] - first, memory)
                regions.append(Region(pixels, first, draw.mirrored))
            into = [region.pixels.numpy() for region in regions]
        for clip, time in uses:  # while the frame is in the core's cache
            into[clip][time] = frame[parts[clip]]
    return regions


def _memory_for(part_HWC: np.ndarray, count: int, memory: Callable[..., Tensor]) -> Tensor:
    """Returns memory [T', H, W, C] for `count` crops like this one, in its order of memory."""
    height, width, channels = part_HWC.shape
    if part_HWC.strides[2] > part_HWC.strides[0]:  # each channel by itself
        planes: Tensor = memory((count, channels, height, width), dtype=torch.uint8)
        return planes.permute(0, 2, 3, 1)
    return memory((count, height, width, channels), dtype=torch.uint8)


def _uses_of_frames(index: FrameIndex) -> list[list[tuple[int, int]]]:
    """Returns for each of the sample's frames where it is used: (clip, place in the region)."""
    uses: list[list[tuple[int, int]]] = [[] for _ in index.needed]
    for clip, (where_T, first) in enumerate(zip(index.where, index.repeated, strict=True)):
        for time, frame in enumerate(where_T[first:].tolist()):
            uses[frame].append((clip, time))
    return uses


def make_clip(region: Region, sampler: ClipSampler, view: str) -> Tensor:
    """Resizes and mirrors a region on its device: uint8 [C, T, S, S]."""
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
