"""Image pyramids, and flow enlarged from scale to scale: linear interpolation as in OpenCV.

Legend: B pairs, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def resize(x_BHW: Tensor, size: tuple[int, int], step: tuple[float, float]) -> Tensor:
    """Resizes pictures to [B, *size], as OpenCV's INTER_LINEAR: without smoothing them first.

    Args:
        step: pixels of the source from one pixel of the result to the next, down and across.
    """
    (height, width), (down, across) = size, step
    left, right, share_W = _neighbours(x_BHW, 2, width, across)
    x_BHW = torch.lerp(x_BHW[:, :, left], x_BHW[:, :, right], share_W)
    above, below, share_H = _neighbours(x_BHW, 1, height, down)
    return torch.lerp(x_BHW[:, above], x_BHW[:, below], share_H[:, None])


def _neighbours(x: Tensor, axis: int, count: int, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns, for each of `count` new pixels, its two old pixels and the weight of the second."""
    last = x.shape[axis] - 1
    place = (torch.arange(count, dtype=torch.float64, device=x.device) + 0.5) * step - 0.5
    place = place.clamp_(0, last)
    first = place.floor()
    share = (place - first).float()
    first = first.long()
    return first, (first + 1).clamp_(max=last), share


def pyramid(image_BHW: Tensor, sizes: Sequence[tuple[int, int]], scale_step: float) -> list[Tensor]:
    """Returns the image at each of :meth:`Parameters.scales`, the finest first."""
    levels = [image_BHW]
    step = 1 / scale_step  # exactly, although sizes were rounded
    for size in sizes[1:]:
        levels.append(resize(levels[-1], size, (step, step)))
    return levels


def enlarge_flow(u_BHW: Tensor, size: tuple[int, int], scale_step: float) -> Tensor:
    """Returns a flow component at the size of the next finer scale, in its pixels."""
    step = (u_BHW.shape[1] / size[0], u_BHW.shape[2] / size[1])
    return resize(u_BHW, size, step).mul_(1 / scale_step)
