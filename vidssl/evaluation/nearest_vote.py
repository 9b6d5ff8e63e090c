"""Classifies videos by a vote of their nearest training videos; nothing is trained.

The weighted vote of Wu et al. 2018 (instance discrimination, arXiv 1805.01978, §3.4), with which
DINO and its successors are measured: features of unit length, the k nearest training videos by
cosine s, and a score per class that is the sum of exp(s / temperature) of its neighbours.

Legend: Q queries, G training videos, D feature width, K classes, k neighbours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vidssl.base.errors import require
from vidssl.evaluation.neighbours import top_k


@dataclass(frozen=True)
class VoteConfig:
    """How neighbours vote.

    Attributes:
        k: neighbours; with fewer training videos, all of them vote.
        temperature: the smaller, the more the nearest count.
    """

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require("k", self.k, self.k >= 1, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "above 0")

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings for a recipe."""
        return asdict(self)


def vote_shares(
    queries_QD: np.ndarray,
    train_GD: np.ndarray,
    label_G: np.ndarray,
    classes: int,
    config: VoteConfig,
    device: str = "cpu",
) -> np.ndarray:
    """Returns each class's share of the weighted votes, float64 [Q, K]; rows sum to 1.

    Rows are scaled to unit length first; they are not centred.

    Raises:
        VidsslError: a row is not finite.
    """
    found = top_k(_unit(queries_QD), _unit(train_GD), config.k, device)
    # The largest weight of each row becomes 1: the shares are the same, and nothing overflows.
    apart = found.similarity.astype(np.float64) - found.similarity[:, :1]
    weight_Qk = np.exp(apart / config.temperature)
    votes_QK = np.zeros((len(queries_QD), classes))
    rows = np.broadcast_to(np.arange(len(queries_QD))[:, None], found.index.shape)
    np.add.at(votes_QK, (rows, label_G[found.index]), weight_Qk)
    shares: np.ndarray = votes_QK / votes_QK.sum(1, keepdims=True)
    return shares


def _unit(x_ND: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(x_ND.astype(np.float32)), dim=1).numpy()
