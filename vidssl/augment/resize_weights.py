"""Resizes regions of frames on the device that holds them, by matrices of weights.

The result is that of :mod:`vidssl.augment.crop_resize` on a host, but a value halfway between two
levels may be rounded the other way. Every kind of resizing is a weighted sum of columns and then of
rows, with weights that depend only on the old and the new size. As two matrix products it costs a
GPU next to nothing; on a host it takes a third of the loading time.

Legend: C channels, T frames, H and W pixels, S pixels of the new side.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.augment.area_resize import area_weights

PIL_RESIZES = ("bilinear", "bicubic")  # PIL rounds to 8 bits between columns and rows


def resize_on_device(pixels_CTHW: Tensor, size: int, resize: str = "area") -> Tensor:
    """Resizes regions to squares: uint8 [C, T, H, W] → [C, T, S, S].

    Args:
        size: S.
        resize: as of :func:`vidssl.augment.crop_resize`.
    """
    height, width = pixels_CTHW.shape[-2:]
    kind = weight_kind(resize, height, width, size)
    x = pixels_CTHW.to(torch.float32, memory_format=torch.contiguous_format)
    if width != size:
        x = x @ resize_weights(kind, width, size, x.device).mT
        if resize in PIL_RESIZES:
            x = _rounded(x)
    if height != size:
        x = resize_weights(kind, height, size, x.device) @ x
    return _rounded(x).to(torch.uint8)


def weight_kind(resize: str, height: int, width: int, size: int) -> str:
    """Returns the kind of :func:`resize_weights` that resizes a region to a square."""
    return "linear" if resize == "area" and min(height, width) < size else resize


def _rounded(x: Tensor) -> Tensor:
    return x.round_().clamp_(0, 255)


@lru_cache(maxsize=2048)
def resize_weights(kind: str, old: int, new: int, device: torch.device) -> Tensor:
    """Returns the weight of each old pixel of a side in each new one: float32 [new, old].

    Args:
        kind: "area" (shrinking), "linear" (as OpenCV's, for enlarging), or one of PIL's.
    """
    return resize_weights_on_host(kind, old, new).to(device)


def resize_weights_on_host(kind: str, old: int, new: int) -> Tensor:
    """As :func:`resize_weights`, on the host."""
    if kind == "area":
        of = area_weights(old, new)
        each = torch.diff(of.begin, append=torch.tensor([len(of.old)]))
        made = torch.zeros(new, old)
        made[torch.arange(new).repeat_interleave(each), of.old] = of.weight
        return made
    # The others are measured: column i of the result is what they do to an old pixel i that is 1
    # while all others are 0.
    each_alone = np.eye(old, dtype=np.float32)
    if kind == "linear":
        grown = cv2.resize(each_alone, (old, new), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(grown.reshape(new, old))
    if kind == "nearest":
        centre = (np.arange(new) + 0.5) * old / new
        return torch.from_numpy(each_alone[centre.astype(int)])
    x = torch.from_numpy(each_alone)[None, None]
    return F.interpolate(x, (new, old), mode=kind, antialias=True)[0, 0]
