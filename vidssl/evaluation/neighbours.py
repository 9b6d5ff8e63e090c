"""Finds exact nearest neighbours by cosine, and measures recall at k with its chance level.

Legend: Q queries, G gallery videos, D feature width, k neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.base.errors import VidsslError
from vidssl.base.finite_values import rows_without_length
from vidssl.evaluation.standard_error import standard_error

PUBLISHED_KS = (1, 5, 10, 20, 50)
BLOCK_ENTRIES = 1 << 24  # similarities held at once: 64 MiB of float32
BLOCK_COLUMNS = 1 << 16


@dataclass(frozen=True)
class Neighbours:
    """The nearest gallery rows of each query, nearest first.

    Attributes:
        index: int64 [Q, k], rows of the gallery.
        similarity: float32 [Q, k].
    """

    index: np.ndarray
    similarity: np.ndarray


def centred_unit(x_ND: np.ndarray, mean_D: np.ndarray | None = None) -> np.ndarray:
    """Subtracts a mean and scales rows to unit length, float32 [N, D].

    Args:
        mean_D: the mean to subtract; None: the rows' own. (The published protocol centres the
            test set and the train set each by its own mean. A single query takes the gallery's.)

    Raises:
        VidsslError: a row is not finite.
    """
    _check_rows(x_ND, "features")
    mean = x_ND.mean(0, dtype=np.float64) if mean_D is None else mean_D
    centred = torch.from_numpy((x_ND - mean).astype(np.float32))
    return F.normalize(centred, dim=1).numpy()


def top_k(
    queries_QD: np.ndarray, gallery_GD: np.ndarray, k: int, device: torch.device | str = "cpu"
) -> Neighbours:
    """Finds for each query the k gallery rows with the largest dot product.

    Equal rows keep the gallery's order. For rows of unit length the dot product is the cosine; for
    concatenated unit rows of two views it is the sum of their cosines. Similarities are computed
    in blocks, so that the Q×G matrix never lies in memory.

    Raises:
        VidsslError: a row is not finite: it would be the nearest of all, or of none.
    """
    _check_rows(queries_QD, "queries")
    _check_rows(gallery_GD, "videos to be found")
    k = min(k, len(gallery_GD))
    gallery = torch.from_numpy(np.ascontiguousarray(gallery_GD, np.float32))
    queries = torch.from_numpy(np.ascontiguousarray(queries_QD, np.float32))
    columns = max(k, min(len(gallery), BLOCK_COLUMNS))
    rows = max(1, BLOCK_ENTRIES // max(columns, 1))
    similarity, index = [], []
    for block in queries.split(rows):
        best = _best_of_blocks(block.to(device), gallery, k, columns)
        similarity.append(best[0].cpu())
        index.append(best[1].cpu())
    if not similarity:
        return Neighbours(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Neighbours(torch.cat(index).numpy(), torch.cat(similarity).numpy())


def _check_rows(rows_ND: np.ndarray, what: str) -> None:
    if len(broken := rows_without_length(rows_ND)):
        raise VidsslError(
            f"{len(broken)} of {len(rows_ND)} {what} have values that are no numbers (NaN or "
            f"infinite), first row {broken[0]}: neighbours of those mean nothing"
        )


def _best_of_blocks(
    queries: Tensor, gallery: Tensor, k: int, columns: int
) -> tuple[Tensor, Tensor]:
    """Returns similarity and index [q, k] of the best rows, merging one gallery block at a time."""
    best_value = torch.empty(len(queries), 0, device=queries.device)
    best_index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for first in range(0, len(gallery), columns):
        block = gallery[first : first + columns].to(queries.device)
        value = queries @ block.T
        index = torch.arange(first, first + len(block), device=queries.device)
        value = torch.cat([best_value, value], 1)
        index = torch.cat([best_index, index.expand(len(queries), -1)], 1)
        order = _largest_first(value, min(k, value.shape[1]))
        best_value, best_index = value.gather(1, order), index.gather(1, order)
    return best_value, best_index


def _largest_first(value_QG: Tensor, k: int) -> Tensor:
    """Returns the columns [Q, k] of each row's largest values; equal ones by column."""
    # topk is many times faster than a stable sort, but takes any of several equal values. Only the
    # few rows whose k-th value has an equal beyond k are sorted.
    columns = value_QG.topk(k, dim=1).indices.sort(dim=1).values
    order = value_QG.gather(1, columns).argsort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    last = value_QG.gather(1, columns[:, -1:])
    tied = ((value_QG >= last).sum(1) > k).nonzero().flatten()
    if len(tied):
        sorted_ = value_QG[tied].argsort(dim=1, descending=True, stable=True)
        columns[tied] = sorted_[:, :k]
    return columns


# ── recall ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Recall:
    """R@k: the share of queries with a neighbour of their own label among the first k.

    Attributes:
        k: number of neighbours that count.
        recall: from 0 to 1.
        error: one standard error of `recall`, as of a share of independent trials.
        chance: expected recall for a gallery in random order.
        queries: Q.
    """

    k: int
    recall: float
    error: float
    chance: float
    queries: int


def hits_at(
    neighbour_QK: np.ndarray, query_label_Q: np.ndarray, gallery_label_G: np.ndarray, k: int
) -> np.ndarray:
    """Returns for each query whether one of its first k neighbours has its label: bool [Q]."""
    found = gallery_label_G[neighbour_QK[:, :k]]
    return (found == query_label_Q[:, None]).any(1)


def recall_at(
    neighbour_QK: np.ndarray,
    query_label_Q: np.ndarray,
    gallery_label_G: np.ndarray,
    ks: Sequence[int] = PUBLISHED_KS,
) -> list[Recall]:
    """Returns R@k for each k; a k larger than the gallery takes the whole gallery."""
    table = []
    for k in ks:
        hits = hits_at(neighbour_QK, query_label_Q, gallery_label_G, k)
        share = float(hits.mean())
        chance = chance_at(query_label_Q, gallery_label_G, k)
        table.append(Recall(k, share, standard_error(share, len(hits)), chance, len(hits)))
    return table


def chance_at(query_label_Q: np.ndarray, gallery_label_G: np.ndarray, k: int) -> float:
    """Returns the expected R@k of a gallery in random order.

    A query with m of G gallery videos of its label misses with probability C(G − m, k) / C(G, k).
    """
    size = len(gallery_label_G)
    k = min(k, size)
    total = 0.0
    for label, count in zip(*np.unique(query_label_Q, return_counts=True), strict=True):
        same = int((gallery_label_G == label).sum())
        total += int(count) * (1 - math.comb(size - same, k) / math.comb(size, k))
    return total / len(query_label_Q)
