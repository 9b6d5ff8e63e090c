"""Measures mean average precision: how early all videos of a query's label come in its ranking.

R@1 looks at one neighbour of each query, and its error on a few hundred queries is large. Average
precision looks at the whole ranking, and shows differences that R@1 hides.

Legend: Q queries, G gallery videos, D feature width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from vidssl.evaluation.neighbours import BLOCK_ENTRIES


@dataclass(frozen=True)
class MeanPrecision:
    """mAP over the queries whose label is in the gallery.

    Attributes:
        mean: from 0 to 1.
        error: one standard error of `mean`, from the spread over queries.
        chance: its expected value for a gallery in random order.
        queries: how many were counted.
    """

    mean: float
    error: float
    chance: float
    queries: int


def mean_precision(
    queries_QD: np.ndarray,
    gallery_GD: np.ndarray,
    query_label_Q: np.ndarray,
    gallery_label_G: np.ndarray,
    device: torch.device | str = "cpu",
) -> MeanPrecision | None:
    """Returns mAP, the gallery ranked by the dot product; equal rows keep the gallery's order.

    A query's average precision is the mean over the gallery videos of its label of the share of its
    label among all videos ranked up to that one. None where no query's label is in the gallery.
    """
    found = np.isin(query_label_Q, gallery_label_G)
    if not found.any():
        return None
    gallery = torch.from_numpy(np.ascontiguousarray(gallery_GD, np.float32)).to(device)
    labels_G = torch.from_numpy(np.asarray(gallery_label_G)).to(device)
    queries = torch.from_numpy(np.ascontiguousarray(queries_QD[found], np.float32))
    labels_Q = torch.from_numpy(np.asarray(query_label_Q)[found]).to(device)
    rows = max(1, BLOCK_ENTRIES // len(gallery_GD))
    each = [
        _precisions(block.to(device) @ gallery.T, of_block, labels_G)
        for block, of_block in zip(queries.split(rows), labels_Q.split(rows), strict=True)
    ]
    precision_Q = torch.cat(each).cpu().numpy()
    return MeanPrecision(
        mean=float(precision_Q.mean()),
        error=float(precision_Q.std() / math.sqrt(len(precision_Q))),
        chance=_chance(np.asarray(query_label_Q)[found], gallery_label_G),
        queries=len(precision_Q),
    )


def _precisions(
    score_QG: torch.Tensor, label_Q: torch.Tensor, label_G: torch.Tensor
) -> torch.Tensor:
    """Returns the average precision of each query: float64 [Q]."""
    order = score_QG.argsort(dim=1, descending=True, stable=True)
    hit_QG = (label_G[order] == label_Q[:, None]).double()
    rank_G = torch.arange(1, hit_QG.shape[1] + 1, device=hit_QG.device)
    return (hit_QG.cumsum(1) / rank_G * hit_QG).sum(1) / hit_QG.sum(1)


def _chance(query_label_Q: np.ndarray, gallery_label_G: np.ndarray) -> float:
    """Returns the expected mAP of a gallery in random order.

    Of G videos m have the label. One of them stands at rank i with equal probability for each i,
    and of the i − 1 before it (m − 1)/(G − 1) have the label, on average.
    """
    size = len(gallery_label_G)
    harmonic = float((1 / np.arange(1, size + 1)).sum())
    total = 0.0
    for label, count in zip(*np.unique(query_label_Q, return_counts=True), strict=True):
        share = (int((gallery_label_G == label).sum()) - 1) / max(size - 1, 1)
        total += int(count) * (share + (1 - share) * harmonic / size)
    return total / len(query_label_Q)
