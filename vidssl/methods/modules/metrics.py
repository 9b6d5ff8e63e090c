"""Figures that show whether training is healthy; several methods report them, none trains on them.

Legend: B clips, P projection width, K remembered clips, C prototypes, M pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_health(features_BP: Tensor) -> dict[str, float]:
    """Returns two signs of collapse for unit vectors [B, P].

    `feature_std` is the standard deviation per dimension times √P: 1 for vectors spread over the
    whole sphere, 0 when all are equal. `feature_rank` is the effective rank, the exponential of the
    entropy of normalised singular values (Roy & Vetterli 2007), at most min(B, P).
    """
    centred = features_BP.float() - features_BP.float().mean(0)
    spread = centred.var(0, unbiased=False).sum().sqrt()
    singular = torch.linalg.svdvals(centred.nan_to_num()).clamp(min=1e-12)
    share = singular / singular.sum()
    return {
        "feature_std": float(spread),
        "feature_rank": float(torch.exp(-(share * share.log()).sum())),
    }


def health_of_views(features: Tensor | Mapping[str, Tensor]) -> dict[str, float]:
    """Returns :func:`feature_health`; for several views that of each, and the smallest of them."""
    if isinstance(features, Tensor):
        return feature_health(features)
    found = {view: feature_health(features_BP) for view, features_BP in features.items()}
    least = {
        name: min(figures[name] for figures in found.values())
        for name in ("feature_std", "feature_rank")
    }
    each = {
        f"{name}_{view}": value
        for view, figures in found.items()
        for name, value in figures.items()
    }
    return least | each


def mean_where(value: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of `value` where `mask` holds, NaN where it holds nowhere."""
    return (value.float() * mask).sum() / mask.sum()


@torch.no_grad()
def nearest_has_same_label(
    feature_BP: Tensor, label_B: Tensor, memory_KP: Tensor, memory_label_K: Tensor, other_BK: Tensor
) -> Tensor:
    """Returns how often the nearest remembered clip has the clip's label.

    Args:
        other_BK: which remembered clips count: those of other source videos.

    Returns:
        A share; NaN where no clip, or no remembered clip that counts, has a label.
    """
    usable_BK = other_BK & (memory_label_K >= 0)
    similarity_BK = feature_BP @ memory_KP.T
    nearest_B = similarity_BK.masked_fill(~usable_BK, float("-inf")).argmax(1)
    known_B = (label_B >= 0) & usable_BK.any(1)
    return mean_where(memory_label_K[nearest_B] == label_B, known_B)


@torch.no_grad()
def paired_cosines(one_MP: Tensor, other_MP: Tensor) -> dict[str, Tensor]:
    """Returns the mean cosine of aligned rows (m, m), and of unaligned rows (m, n).

    Args:
        one_MP, other_MP: vectors of any length, M at least 2.
    """
    one_MP, other_MP = F.normalize(one_MP, dim=1), F.normalize(other_MP, dim=1)
    aligned = (one_MP * other_MP).sum()
    rows = len(one_MP)
    # The sum over all pairs is the product of the sums.
    unaligned = one_MP.sum(0) @ other_MP.sum(0) - aligned
    return {"aligned": aligned / rows, "unaligned": unaligned / (rows * (rows - 1))}


@torch.no_grad()
def prototype_usage(score_BC: Tensor) -> Tensor:
    """Returns how evenly clips fall on prototypes: 1 as evenly as possible, 0 all on the same one.

    It is exp(H) − 1 over its largest possible value; H is the entropy of how often each prototype
    is a clip's best one. (The entropy of the mean prediction hardly shows a collapse: at τ = 0.1 a
    single prediction is spread over most prototypes.)
    """
    clips, count = score_BC.shape
    ones_B = torch.ones(clips, device=score_BC.device)
    share_C = torch.zeros(count, device=score_BC.device).scatter_add_(0, score_BC.argmax(1), ones_B)
    share_C = share_C / clips
    effective = torch.exp(-torch.xlogy(share_C, share_C).sum())
    return (effective - 1) / max(min(clips, count) - 1, 1)
