"""Selects several splits by name, and averages a figure over them.

UCF101 and HMDB51 have three splits, and papers report the mean over them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vidssl.base.errors import UsageError
from vidssl.dataset.annotations import Annotations

ALL = "all"


@dataclass(frozen=True)
class SplitMean:
    """The mean of one figure over splits.

    Attributes:
        mean: of the splits, each of the same weight.
        error: one standard error of the mean, s / √n with s of n − 1 degrees of freedom. Splits of
            one set share videos, so it says how far the splits differ, not how far another set
            would.
        splits: how many.
    """

    mean: float
    error: float
    splits: int


def mean_over_splits(figures: Sequence[float]) -> SplitMean:
    """Returns the mean of a figure over two splits or more, and its standard error."""
    error = statistics.stdev(figures) / math.sqrt(len(figures))
    return SplitMean(statistics.fmean(figures), error, len(figures))


def split_names(annotations: Annotations, wanted: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the split columns that are meant, each once.

    Args:
        wanted: names; a number such as 1 also means split1; "all" alone means every column.

    Raises:
        UsageError: fewer than two splits.
        VidsslError: there is no split of one of the names.
    """
    columns = list(annotations.splits)
    if list(wanted) == [ALL]:
        found = columns
    else:
        found = []
        for name in wanted:
            named = f"split{name}"
            found.append(named if name not in columns and named in columns else name)
            annotations.select(found[-1], 0)  # refuses a name that does not exist
    found = list(dict.fromkeys(found))
    if len(found) < 2:
        listed = f"the annotations have {', '.join(columns)}" if columns else "there is none"
        raise UsageError(f"a mean over splits needs two splits or more: {listed}")
    return tuple(found)
