"""Tells whether one encoder is better than another on the same test videos, by a paired bootstrap.

Clips of one source video succeed or fail together. So whole groups are drawn, with replacement, and
in each draw all encoders answer the same videos: what is common to them cancels out. (Efron 1979;
of groups: Davison and Hinkley 1997, section 3.8.)

Legend: Q test videos, R encoders, G groups, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 2000
COVERED = 0.95
FEWEST_GROUPS = 2  # of one group every draw is the same, and no interval means anything
BLOCK = 1 << 24  # entries of draws that are held at once


@dataclass(frozen=True)
class PairedDifference:
    """How much the share of hits of one encoder is above another's.

    Attributes:
        difference: from −1 to 1.
        low, high: the interval that holds 95 % of the draws.
        videos, groups: how many were drawn from.
    """

    difference: float
    low: float
    high: float
    videos: int
    groups: int

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval does not hold zero."""
        return self.groups >= FEWEST_GROUPS and (self.low > 0 or self.high < 0)


class Bootstrap:
    """The shares of hits of some encoders in many draws of the same test videos.

    Args:
        hit_QR: whether each encoder was right on each video.
        group_Q: number of the group of each video.
    """

    def __init__(
        self, hit_QR: np.ndarray, group_Q: np.ndarray, draws: int = DRAWS, seed: int = 0
    ) -> None:
        _, place_Q = np.unique(group_Q, return_inverse=True)
        self.videos, self.groups = len(place_Q), int(place_Q.max(initial=-1)) + 1
        hits = np.asarray(hit_QR, np.float64)
        self.share_R = hits.mean(0)
        hit_GR = np.zeros((self.groups, hits.shape[1]))
        np.add.at(hit_GR, place_Q, hits)
        count_G = np.bincount(place_Q, minlength=self.groups).astype(np.float64)
        draw = np.random.default_rng(seed)
        rows = max(1, BLOCK // max(self.groups, 1))
        shares = []
        for first in range(0, draws, rows):
            size = min(rows, draws - first)
            even = np.full(self.groups, 1 / self.groups)
            times_BG = draw.multinomial(self.groups, even, size=size).astype(np.float64)
            shares.append((times_BG @ hit_GR) / (times_BG @ count_G)[:, None])
        self.share_BR = np.concatenate(shares)

    def between(self, a: int, b: int) -> PairedDifference:
        """Returns how much encoder `a` is above encoder `b`."""
        apart_B = self.share_BR[:, a] - self.share_BR[:, b]
        return self._interval(float(self.share_R[a] - self.share_R[b]), apart_B)

    def above(self, a: int, level: float) -> PairedDifference:
        """Returns how much encoder `a` is above a level that is known, such as chance."""
        return self._interval(float(self.share_R[a] - level), self.share_BR[:, a] - level)

    def _interval(self, difference: float, apart_B: np.ndarray) -> PairedDifference:
        outside = (1 - COVERED) / 2
        low, high = np.quantile(apart_B, [outside, 1 - outside])
        return PairedDifference(difference, float(low), float(high), self.videos, self.groups)
