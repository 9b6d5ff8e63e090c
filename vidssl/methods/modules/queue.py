"""A first-in-first-out queue of rows, kept in buffers.

Legend: K rows, P width of a feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """K rows of several aligned columns, each a buffer `[K, …]` under its own name.

    All columns share one pointer, so row j of every column belongs to the same clip.
    """

    pointer: Tensor
    filled: Tensor

    def __init__(self, **columns: Tensor) -> None:
        super().__init__()
        lengths = {len(c) for c in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of a queue must be equally long, not {sorted(lengths)}")
        self.columns = tuple(columns)
        self.length = lengths.pop()
        self._was_full = False
        for name, start in columns.items():
            self.register_buffer(name, start)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, **rows: Tensor) -> None:
        """Overwrites the oldest rows, column by column; all columns must be given.

        Raises:
            ValueError: other columns than the queue's, or more rows than it holds.
        """
        if set(rows) != set(self.columns):
            raise ValueError(f"this queue has columns {self.columns}, not {tuple(rows)}")
        count = len(next(iter(rows.values())))
        if count > self.length:
            raise ValueError(f"{count} rows do not fit a queue of {self.length}")
        index = (self.pointer + torch.arange(count, device=self.pointer.device)) % self.length
        for name, values in rows.items():
            column = getattr(self, name)
            column[index] = values.to(column.dtype)
        self.pointer.add_(count).remainder_(self.length)
        self.filled.add_(count).clamp_(max=self.length)

    def valid(self) -> Tensor:
        """Returns which rows have been written [K]."""
        return torch.arange(self.length, device=self.filled.device) < self.filled

    def full(self) -> Tensor:
        """Returns whether all rows have been written, as a scalar on the device."""
        return self.filled >= self.length

    def is_full(self) -> bool:
        """Whether all rows have been written. It waits for the device only until they are."""
        self._was_full = self._was_full or bool(self.full())
        return self._was_full

    def share_filled(self) -> Tensor:
        """Returns the share of rows written."""
        return self.filled.float() / self.length


def random_unit_rows(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """Returns random unit vectors [rows, width], as MoCo starts its queue."""
    return F.normalize(torch.randn(rows, width, generator=generator), dim=1)


def no_numbers(rows: int) -> Tensor:
    """Returns a column [rows] of −1, which means not known."""
    return torch.full((rows,), -1, dtype=torch.long)
