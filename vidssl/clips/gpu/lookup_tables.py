"""Tables of what a view does to stored levels (0 to 255), for the kernels.

Each table is measured: the view's own methods are applied to all levels. So the kernels also serve
views that a user has written. Where a view does more than a table can express, there is no table
(None), and plain PyTorch is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from vidssl.views import get_view

LEVELS = 256


@lru_cache
def normalise_line(view: str, shown: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns scale and shift per channel, if a view's `normalise` is such a line; else None."""
    x = torch.arange(0, 256.0).expand(3, 1, 1, -1)[None]
    made = get_view(view).normalise(x.clone(), shown)[0, :, 0, 0]
    if made.shape != (3, LEVELS):
        return None
    scale, shift = (made[:, -1] - made[:, 0]) / 255, made[:, 0]
    line = scale[:, None] * x[0, :, 0, 0] + shift[:, None]
    if not torch.allclose(line, made, rtol=1e-5, atol=1e-5):
        return None
    return scale.numpy(), shift.numpy()


@lru_cache
def picture_table(view: str, shown: str) -> np.ndarray | None:
    """Returns the table of a view's `levels`, as kernels read it, float32 [3, 1 + 256], or None.

    A row for each channel of the picture: the number of the stored channel it comes from, then
    its value for every level.
    """
    one = get_view(view)
    found = _by_channel(lambda x: one.levels(x, shown), one.channels)
    return None if found is None or len(found) != 3 else found


@lru_cache
def value_table(view: str, shown: str) -> np.ndarray | None:
    """Returns the network input for each channel and level, float32 [C, 256].

    None where channels are mixed or exchanged.
    """
    one = get_view(view)
    found = _by_channel(lambda x: one.present(x, shown), one.channels)
    if found is None or found[:, 0].tolist() != list(range(one.channels)):
        return None
    return np.ascontiguousarray(found[:, 1:])


def _by_channel(makes: Callable[[torch.Tensor], torch.Tensor], channels: int) -> np.ndarray | None:
    """Returns for each channel of a result its stored channel and its table [C', 1 + 256], or None.

    Every stored channel is varied alone, over all levels, and then all of them together. If the
    tables do not predict the second result, channels are mixed: None.

    Args:
        makes: the function to measure: uint8 [M, C, T, H, W] to [M, C', T, H, W].
        channels: C.
    """
    level = torch.arange(LEVELS, dtype=torch.uint8)
    alone = torch.zeros(channels, channels, 1, 1, LEVELS, dtype=torch.uint8)
    alone[range(channels), range(channels)] = level
    made = makes(alone)[:, :, 0, 0].float()
    source = made.var(-1).argmax(0)
    table = made[source, range(len(source))]
    mixed = torch.stack([level.roll(7 * place + 1) for place in range(channels)])
    seen = makes(mixed[None, :, None, None].clone())[0, :, 0, 0].float()
    if not table.gather(1, mixed[source].long()).equal(seen):
        return None
    return torch.cat([source[:, None], table], dim=1).numpy()


@lru_cache
def only_swaps_sides(view: str) -> bool:
    """Whether mirroring a view only exchanges left and right, and changes no values."""
    channels = get_view(view).channels
    x = torch.arange(channels * 2 * 8 * 9).remainder(251).to(torch.uint8).view(channels, 2, 8, 9)
    return bool(get_view(view).flip_tensor(x).equal(x.flip(-1)))
