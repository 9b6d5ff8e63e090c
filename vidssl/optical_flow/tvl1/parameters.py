"""The parameters of TV-L1, and the numbers that follow from them for frames of a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidssl.base.errors import VidsslError

SMALLEST_SCALE = 16  # pixels of a side: no scale of the pyramid is smaller


@dataclass(frozen=True)
class Parameters:
    """OpenCV's names and defaults, which CoCLR and ViCC used.

    Attributes:
        tau: step of the dual variables.
        lambda_: weight of the data against smoothness.
        theta: how tightly the two are coupled.
        nscales: most scales of the pyramid.
        warps: linearisations per scale.
        epsilon: stop where the flow's mean square change, over pixels, is epsilon² or less.
        inner_iterations: between two medians.
        outer_iterations: medians per warp, at most.
        scale_step: of one scale's size to the next finer one's.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Parameters:
        """Returns the parameters that are recorded with flow.

        Raises:
            VidsslError: they ask for something that is not implemented.
        """
        fields = dict(params)
        if fields.pop("gamma") != 0:
            raise VidsslError("this TV-L1 knows no change of brightness: gamma must be 0")
        if fields.pop("median_filtering") != 5:
            raise VidsslError("this TV-L1 has a median of 5 × 5 only: median_filtering must be 5")
        fields["lambda_"] = fields.pop("lambda")
        return cls(**fields)

    # Constants are rounded to float32 once, as OpenCV does.

    @property
    def data_step(self) -> float:
        """λθ: the most by which the data term moves the flow, per unit of gradient."""
        return float(np.float32(self.lambda_ * self.theta))

    @property
    def dual_step(self) -> float:
        """τ/θ."""
        return float(np.float32(self.tau / self.theta))

    @property
    def coupling(self) -> float:
        """θ."""
        return float(np.float32(self.theta))

    def tolerance(self, height: int, width: int) -> float:
        """Returns the sum over pixels of the squared change at which iteration stops."""
        return float(np.float32(self.epsilon * self.epsilon * (height * width)))

    def scales(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns (height, width) of each scale, the finest first; halves are rounded to even."""
        sizes = [(height, width)]
        while len(sizes) < self.nscales:
            height, width = (round(side * self.scale_step) for side in sizes[-1])
            if min(height, width) < SMALLEST_SCALE:
                break
            sizes.append((height, width))
        return sizes
