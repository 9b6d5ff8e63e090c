"""What a view does to stored levels, asked of the view itself and written down for kernels.

So kernels serve views of a user's own as well; None where a view does more than a table can say.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from vidssl.views import get_view

LEVELS = 256


@lru_cache
def line_of(view: str, shown: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Gives what `normalise` does to levels as scale and shift per channel; None: another thing."""
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
    """Gives what `levels` makes a picture of, as kernels read it [3, 1 + 256]; None: another thing.

    Asked of the view: of each stored level, of one channel after the other and then of all.
    """
    one, channels = get_view(view), get_view(view).channels
    level = torch.arange(LEVELS, dtype=torch.uint8)
    alone = torch.zeros(channels, channels, 1, 1, LEVELS, dtype=torch.uint8)
    alone[range(channels), range(channels)] = level
    made = one.levels(alone, shown)[:, :, 0, 0].float()
    if made.shape[1:] != (3, LEVELS):
        return None
    source = made.var(-1).argmax(0)
    table = made[source, range(3)]
    mixed = torch.stack([level.roll(7 * place + 1) for place in range(channels)])
    seen = one.levels(mixed[None, :, None, None].clone(), shown)[0, :, 0, 0].float()
    if not table.gather(1, mixed[source].long()).equal(seen):
        return None
    return torch.cat([source[:, None], table], dim=1).numpy()


@lru_cache
def table_of(view: str, shown: str) -> np.ndarray | None:
    """Gives what every level of every channel becomes, float32 [C, 256]; None: not each by itself.

    Asked of the view: of each level, and then of each beside other ones.
    """
    one, channels = get_view(view), get_view(view).channels
    level = torch.arange(LEVELS, dtype=torch.uint8).expand(channels, -1)
    table = one.present(level[None, :, None, None].clone(), shown)[0, :, 0, 0]
    if table.shape != (channels, LEVELS):
        return None
    mixed = torch.stack([of.roll(7 * place + 1) for place, of in enumerate(level)])
    seen = one.present(mixed[None, :, None, None].clone(), shown)[0, :, 0, 0]
    known = torch.stack([of.roll(7 * place + 1) for place, of in enumerate(table)])
    return table.contiguous().numpy() if seen.equal(known) else None


@lru_cache
def only_mirrors(view: str) -> bool:
    """Whether a view is mirrored by changing places alone."""
    channels = get_view(view).channels
    x = torch.arange(channels * 2 * 8 * 9).remainder(251).to(torch.uint8).view(channels, 2, 8, 9)
    return bool(get_view(view).flip_tensor(x).equal(x.flip(-1)))
