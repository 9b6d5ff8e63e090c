"""One standard error of a share of independent trials."""

from __future__ import annotations

import math


def standard_error(share: float, n: int) -> float:
    """Returns one standard error of a share of n independent trials, sqrt(p(1 − p) / n).

    For a share of 0 or 1 the formula yields 0, as if no other result were possible. There it is
    1 / (n + 1): the length of Wilson's interval (1927) for one standard error.
    """
    if not n:
        return 0.0
    return math.sqrt(share * (1 - share) / n) if 0 < share < 1 else 1 / (n + 1)
