"""What a view does to stored levels, asked of the view itself and written down for kernels.

So kernels serve views of a user's own as well; None where a view does more than a table can say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from vidssl.views import get_view

LEVELS = 256


@lru_cache
def line_of(view: str, shown: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns what `normalise` does to levels as scale and shift per channel; None: another
    thing.
    """
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
def picture_of(view: str, shown: str) -> np.ndarray | None:
    """Returns what `levels` makes a picture of, as kernels read it [3, 1 + 256]; None: another
    thing.

    Of each channel: which stored one it comes from, and what it makes of every level.
    """
    one = get_view(view)
    found = _by_channel(lambda x: one.levels(x, shown), one.channels)
    return None if found is None or len(found) != 3 else found


@lru_cache
def table_of(view: str, shown: str) -> np.ndarray | None:
    """Returns what levels of each channel become, float32 [C, 256]; None: not each by itself."""
    one = get_view(view)
    found = _by_channel(lambda x: one.present(x, shown), one.channels)
    if found is None or found[:, 0].tolist() != list(range(one.channels)):
        return None
    return np.ascontiguousarray(found[:, 1:])


def _by_channel(makes: Callable[[torch.Tensor], torch.Tensor], channels: int) -> np.ndarray | None:
    """Returns where each channel made comes from, and by what table; None: from several.

    Asked of one stored channel after the other, at every level, and then of all together.
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
def only_mirrors(view: str) -> bool:
    """Whether a view is mirrored by changing places alone."""
    channels = get_view(view).channels
    x = torch.arange(channels * 2 * 8 * 9).remainder(251).to(torch.uint8).view(channels, 2, 8, 9)
    return bool(get_view(view).flip_tensor(x).equal(x.flip(-1)))
