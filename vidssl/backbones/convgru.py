"""A convolutional GRU cell with 1×1 kernels (Ballas et al. 2016, as used by Han et al. 2019, DPC).

Shapes: B clips, D channels of input and state, H and W places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvGRUCell(nn.Module):
    """u, r = σ(conv[x, h]); h̃ = tanh(conv[x, r⊙h]); h' = (1−u)h + u·h̃.

    Convolutions start orthogonal, biases at 0.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reset = nn.Conv2d(2 * dim, dim, 1)
        self.update = nn.Conv2d(2 * dim, dim, 1)
        self.out = nn.Conv2d(2 * dim, dim, 1)
        for conv in (self.reset, self.update, self.out):
            nn.init.orthogonal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x_BDHW: Tensor, h_BDHW: Tensor) -> Tensor:
        """Returns the next state [B, D, H, W]."""
        both = torch.cat([x_BDHW, h_BDHW], dim=1)
        u, r = torch.sigmoid(self.update(both)), torch.sigmoid(self.reset(both))
        new = torch.tanh(self.out(torch.cat([x_BDHW, r * h_BDHW], dim=1)))
        return (1 - u) * h_BDHW + u * new
