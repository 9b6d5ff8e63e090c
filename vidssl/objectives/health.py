"""Figures of health that several methods report; none of them has a part in training.

Legend: B clips, P projection width, K remembered clips.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_where(value: Tensor, mask: Tensor) -> Tensor:
    """Gives the mean of `value` where `mask` holds, NaN where it holds nowhere."""
    return (value.float() * mask).sum() / mask.sum()


@torch.no_grad()
def nearest_has_same_label(
    feature_BP: Tensor, label_B: Tensor, memory_KP: Tensor, memory_label_K: Tensor, other_BK: Tensor
) -> Tensor:
    """Gives how often the nearest remembered clip has the clip's label.

    Args:
        other_BK: which remembered clips may be looked at: those of other source videos.

    Returns:
        A share; NaN where no clip, or no clip that it may look at, has a label.
    """
    usable_BK = other_BK & (memory_label_K >= 0)
    similarity_BK = feature_BP @ memory_KP.T
    nearest_B = similarity_BK.masked_fill(~usable_BK, float("-inf")).argmax(1)
    known_B = (label_B >= 0) & usable_BK.any(1)
    return mean_where(memory_label_K[nearest_B] == label_B, known_B)
