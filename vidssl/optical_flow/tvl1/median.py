"""The median filter of 5 × 5 pixels, by sorting networks: fixed sequences of comparisons.

A column of five pixels belongs to five windows, so columns are sorted once. Then each row of a
window of sorted columns is sorted. After that the 25 values ascend along rows and columns. Each of
the six values in the upper left has at least 13 values that are not below it, and each of the six
in the lower right has as many that are not above it. So the median of all 25 is the median of the
13 in between; :data:`MIDDLE` finds it.

Legend: B pictures, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Pairs (a, b) after which a is the smaller one.
SORT_FIVE = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))

# The same on (row, column) of the ordered 5 × 5; afterwards MEDIAN holds the median. Found by a
# search over the 162 ways in which zeros and ones can lie on the 13 places, which also proves it.
MIDDLE = (
    ((2, 3), (4, 0)), ((1, 2), (3, 1)), ((1, 3), (0, 4)), ((2, 3), (2, 2)), ((3, 2), (4, 1)),
    ((2, 1), (3, 0)), ((3, 2), (2, 2)), ((3, 1), (3, 2)), ((3, 0), (2, 3)), ((3, 1), (2, 3)),
    ((1, 4), (3, 0)), ((2, 3), (0, 4)), ((1, 3), (3, 1)), ((0, 3), (2, 2)), ((3, 2), (3, 0)),
    ((3, 2), (0, 3)), ((2, 3), (3, 1)), ((0, 3), (3, 1)),
)  # fmt: skip
MEDIAN = (0, 3)


def median_5x5(x_BHW: Tensor) -> Tensor:
    """Returns the median around each pixel [B, H, W]; border pixels are repeated outwards."""
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
