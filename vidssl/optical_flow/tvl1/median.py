"""The median of 5 × 5 pixels, by sorting networks: comparisons that do not depend on the data.

A column of five serves five windows, so columns are sorted once. Sorting each row of what comes
out leaves 25 values in order along rows and columns. Of those, the six in the upper left have at
least 13 values above them and the six in the lower right as many below, so the median of all is
the median of the 13 between; :data:`MIDDLE` finds it.

Legend: B pictures, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Pairs (a, b) after which a is the smaller one.
SORT_FIVE = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))

# The same on (row, column) of the ordered 5 × 5; then MEDIAN holds the median. Found by a search
# over the 162 ways in which 0 and 1 can lie on the 13 places, which also proves it.
MIDDLE = (
    ((2, 3), (4, 0)), ((1, 2), (3, 1)), ((1, 3), (0, 4)), ((2, 3), (2, 2)), ((3, 2), (4, 1)),
    ((2, 1), (3, 0)), ((3, 2), (2, 2)), ((3, 1), (3, 2)), ((3, 0), (2, 3)), ((3, 1), (2, 3)),
    ((1, 4), (3, 0)), ((2, 3), (0, 4)), ((1, 3), (3, 1)), ((0, 3), (2, 2)), ((3, 2), (3, 0)),
    ((3, 2), (0, 3)), ((2, 3), (3, 1)), ((0, 3), (3, 1)),
)  # fmt: skip
MEDIAN = (0, 3)


def median_5x5(x_BHW: Tensor) -> Tensor:
    """Returns the median around each pixel; beyond the border its pixels are repeated."""
    height, width = x_BHW.shape[1:]
    x = F.pad(x_BHW[:, None], (2, 2, 2, 2), mode="replicate")[:, 0]
    columns = _sorted_five([x[:, row : row + height] for row in range(5)])
    ordered = {
        (row, place): value
        for row, plane in enumerate(columns)
        for place, value in enumerate(
            _sorted_five([plane[:, :, shift : shift + width] for shift in range(5)])
        )
    }
    for a, b in MIDDLE:
        ordered[a], ordered[b] = _exchanged(ordered[a], ordered[b])
    return ordered[MEDIAN]


def _sorted_five(values: Sequence[Tensor]) -> list[Tensor]:
    values = list(values)
    for a, b in SORT_FIVE:
        values[a], values[b] = _exchanged(values[a], values[b])
    return values


def _exchanged(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a, b), torch.maximum(a, b)
