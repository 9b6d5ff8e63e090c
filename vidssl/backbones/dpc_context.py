"""The context network of dense predictive coding: predicts later blocks from earlier ones.

Han et al. 2019 (DPC), §3; Rai et al. 2021 (CoCon) with unit features and unit states.

Legend: B clips, N blocks: K of them seen, P predicted; D channels, H and W places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidssl.backbones.convgru import ConvGRUCell

NORM_EPS = 1e-5


class Rollout(NamedTuple):
    """What a context network predicts.

    Attributes:
        pred: features of the P next blocks [B, P, D, H, W].
        hidden: the state after the last of them [B, D, H, W].
    """

    pred: Tensor
    hidden: Tensor


def unit_channels(x: Tensor, dim: int) -> Tensor:
    """Returns x / (‖x‖ + 1e-5) along the channels `dim`: unit length at every place."""
    return x / (x.norm(dim=dim, keepdim=True) + NORM_EPS)


def _as_is(h: Tensor) -> Tensor:
    return h


class DenseContext(nn.Module):
    """A ConvGRU over blocks, and a predictor φ of the next block from its state."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gru = ConvGRUCell(dim)
        self.predict = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 1)
        )
        for layer in (self.predict[0], self.predict[2]):
            nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def look(self, x_BKDHW: Tensor, drop: Callable[[Tensor], Tensor] = _as_is) -> Tensor:
        """Returns the state after K blocks [B, D, H, W], from a state of zeros.

        Args:
            drop: dropout of the state, which the next block gets; by default none.
        """
        h = torch.zeros_like(x_BKDHW[:, 0])
        for x_BDHW in x_BKDHW.unbind(1):
            h = drop(self.gru(x_BDHW, h))
        return h

    def rollout(
        self,
        seen_BKDHW: Tensor,
        steps: int,
        *,
        unit: bool = True,
        drop: Callable[[Tensor], Tensor] = _as_is,
    ) -> Rollout:
        """Takes K blocks, then predicts `steps` more, each from the predictions before it.

        Args:
            unit: predictions and states have unit length (CoCon; `seen` must have it already);
                if not, the input of the GRU passes a ReLU instead (DPC).
            drop: dropout of the state, which the next step gets; by default none.
        """
        size = unit_channels if unit else (lambda x, dim: x)
        enters = _as_is if unit else torch.relu
        h = size(self.look(enters(seen_BKDHW), drop), 1)
        pred = []
        for _ in range(steps):
            predicted = size(self.predict(h), 1)
            pred.append(predicted)
            h = size(drop(self.gru(enters(predicted), h)), 1)
        return Rollout(torch.stack(pred, dim=1), h)
