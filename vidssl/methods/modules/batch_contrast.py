"""Contrast within the batch: every clip against all other clips of the batch, over all ranks.

Both clips of a video pass through the trained network, and each is the other's positive (Chen et
al. 2020, SimCLR). A small set learns more from it than from a queue: no key is stale, and both
sides of a pair have a gradient (docs/results.md).

Legend: N rows of this rank, M rows of all ranks, P projection width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidssl.base.distributed import gather, gather_with_gradient, rank


class BatchRows:
    """The rows of a batch: features with gradient, and other columns, of all ranks.

    Args:
        feature_NP: unit embeddings of this rank's clips.
        columns: [N, …] each, such as the number of the video.

    Attributes:
        feature: of all ranks [M, P], with gradient.
        columns: of all ranks [M, …] each.
    """

    def __init__(self, feature_NP: Tensor, columns: dict[str, Tensor]) -> None:
        self.own = feature_NP
        self.own_columns = columns
        self.feature = gather_with_gradient(feature_NP)
        self.columns = {name: gather(column) for name, column in columns.items()}

    def itself(self) -> Tensor:
        """Returns which of all rows is each of this rank's rows itself, bool [N, M]."""
        rows, every = len(self.own), len(self.feature)
        place = torch.arange(rows, device=self.own.device) + rank() * rows
        return place[:, None] == torch.arange(every, device=self.own.device)

    def same(self, column: str) -> Tensor:
        """Returns where a column of a row of this rank equals that of any row, bool [N, M]."""
        return self.own_columns[column][:, None] == self.columns[column]

    def scores(self, temperature: float) -> Tensor:
        """Returns z·z / τ, [N, M]; −inf for a row and itself."""
        score_NM = self.scores_of(self.own, temperature)
        return score_NM.masked_fill(self.itself(), float("-inf"))

    def scores_of(self, q_NP: Tensor, temperature: float) -> Tensor:
        """Returns q·z / τ for rows of this rank in another view, [N, M]."""
        return q_NP @ self.feature.T / temperature
