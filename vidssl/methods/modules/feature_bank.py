"""Recent features of this rank, newest first, for codes over more clips than a batch holds.

Legend: V views, B clips, K remembered clips per view, P projection width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecentFeatures(nn.Module):
    """The last K features of every view, in a buffer [V, K, P] that begins as zeros."""

    rows: Tensor

    def __init__(self, views: int, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(views, length, width))
        self._was_full = False

    @torch.no_grad()
    def push(self, z_VBP: Tensor) -> None:
        """Puts a batch in front; as many of the oldest fall off the end."""
        length = self.rows.shape[1]
        self.rows.copy_(torch.cat([z_VBP.to(self.rows.dtype), self.rows], dim=1)[:, :length])

    def is_full(self) -> bool:
        """Whether the last row has been written; one of length 0 never is.

        The device is waited for only until it is so.
        """
        if not self._was_full and self.rows.shape[1]:
            self._was_full = bool(self.rows[:, -1].any())
        return self._was_full
