"""Filter taps for kernels: resizing and blurring as weights of a few neighbouring pixels.

Both are done along one side of a picture and then along the other. Each new pixel is a weighted sum
of K consecutive old pixels; its taps are the number of the first one, and the K weights.

Legend: S pixels of the new side, K taps of each, G filters, n pixels of a small side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.augment.colour import BOX_PASSES, GAUSSIAN_REACH, box_radius
from vidssl.augment.policy import AugmentSpec
from vidssl.augment.resize_weights import resize_weights_on_host

Taps = tuple[np.ndarray, np.ndarray]  # first old pixel int32 [S], weights float32 [K, S]


@lru_cache(maxsize=4096)
def resize_taps(kind: str, old: int, new: int) -> Taps:
    """Returns the taps for resizing a side; weights behind the last old pixel are 0.

    Args as of :func:`vidssl.augment.resize_weights.resize_weights`.
    """
    dense = resize_weights_on_host(kind, old, new).numpy()
    taken = dense != 0
    first = taken.argmax(axis=1)
    count = int((old - taken[:, ::-1].argmax(axis=1) - first).max())
    place = first[:, None] + np.arange(count)
    weight = np.take_along_axis(dense, np.minimum(place, old - 1), axis=1)
    weight[place >= old] = 0
    return first.astype(np.int32), np.ascontiguousarray(weight.T, np.float32)


def identity_taps(old: int, new: int) -> Taps:
    """Returns the taps that leave a side unchanged, with zeros behind its last pixel."""
    x = np.arange(new)
    return np.minimum(x, old - 1).astype(np.int32), (x < old).astype(np.float32)[None]


def blur_taps(
    sigmas: Sequence[float], spec: AugmentSpec, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the taps of a policy's blurs: first int32 [G, S], weights float32 [G, K, S].

    Away from the borders a filter has the same weights everywhere. So the weights are measured on
    a small side, a little longer than two radii, and copied to the places of the large side.
    """
    if spec.blur_kind == "gaussian":
        reach, passes, border = math.ceil(GAUSSIAN_REACH * spec.blur_sigma_max), 1, "reflect"
        reach = max(1, min(reach, size - 1))
        sigma_G1 = torch.tensor(sigmas)[:, None]
        kernel = torch.exp(-0.5 * (_offsets(reach) / sigma_G1) ** 2)
        kernel /= kernel.sum(1, keepdim=True)
    else:
        radius_G1 = torch.tensor([box_radius(sigma) for sigma in sigmas])[:, None]
        reach, passes, border = math.ceil(float(radius_G1.max())), BOX_PASSES, "replicate"
        kernel = (radius_G1 + 1 - _offsets(reach).abs()).clamp(0, 1) / (2 * radius_G1 + 1)
    whole = reach * passes
    small = min(size, 2 * whole + 3)
    dense = _dense_weights(small, kernel, reach, passes, border)
    count = min(2 * whole + 1, small)
    # For each pixel of the large side the pixel of the small side with the same weights.
    x = np.arange(size)
    like = np.where(x > whole, np.maximum(whole + 1, x - (size - small)), x) if size > small else x
    first = np.clip(like - whole, 0, small - count)
    place = (first[:, None] + np.arange(count))[None]
    weight = np.take_along_axis(dense[:, like], place, axis=2)
    there = np.clip(x - whole, 0, size - count).astype(np.int32)
    weight_GKS = np.ascontiguousarray(weight.transpose(0, 2, 1))
    return np.repeat(there[None], len(weight_GKS), axis=0), weight_GKS


def _offsets(reach: int) -> Tensor:
    return torch.arange(-reach, reach + 1, dtype=torch.float32)


def _dense_weights(
    small: int, kernel_GK: Tensor, reach: int, passes: int, border: str
) -> np.ndarray:
    """Returns the weight of each old pixel in each new one [G, n, n]."""
    filters = len(kernel_GK)
    x = torch.eye(small)[:, None].expand(-1, filters, -1)
    for _ in range(passes):
        x = F.conv1d(F.pad(x, (reach, reach), mode=border), kernel_GK[:, None], groups=filters)
    return x.permute(1, 2, 0).numpy()
