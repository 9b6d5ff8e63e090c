"""Recent embeddings of this rank, newest first, for codes over more videos than a batch holds.

Legend: V embeddings of each video, B videos, K remembered videos, P projection width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecentFeatures(nn.Module):
    """The last K embeddings of each of V kinds, in a buffer [V, K, P] that begins as zeros."""

    rows: Tensor

    def __init__(self, kinds: int, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(kinds, length, width))
        self._was_full = False

    @torch.no_grad()
    def push(self, z_VBP: Tensor) -> None:
        """Puts a batch in front; as many of the oldest rows are dropped at the end."""
        length = self.rows.shape[1]
        self.rows.copy_(torch.cat([z_VBP.to(self.rows.dtype), self.rows], dim=1)[:, :length])

    def is_full(self) -> bool:
        """Whether the last row has been written; always False for length 0.

        It waits for the device only until the answer is True for the first time.
        """
        if not self._was_full and self.rows.shape[1]:
            self._was_full = bool(self.rows[:, -1].any())
        return self._was_full
