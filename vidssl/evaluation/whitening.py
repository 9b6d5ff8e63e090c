"""Whitens features without labels: directions in which one video's windows differ count less.

What changes between windows of one video is mostly not what the video shows: where the camera
looks, when the clip begins. The covariance within videos says how much each direction changes so,
and features are divided by it. This is within-class covariance normalisation (Hatch et al. 2006)
with each video as a class of its own; it needs no labels.

Legend: V videos, W windows of all videos, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.evaluation.features import Features

REGULARISATION = 0.1  # of the mean variance, so that quiet directions are not blown up
METRICS = ("centred", "whitened")  # how video features are compared


def check_metric(metric: str) -> None:
    """Checks that there is such a metric.

    Raises:
        UsageError: there is none.
    """
    if metric not in METRICS:
        raise UsageError(
            f"there is no metric {metric}{nearest_name(metric, METRICS)}; there are centred and "
            "whitened"
        )


@dataclass(frozen=True)
class Whitening:
    """A linear map of video features.

    Attributes:
        mean: float64 [D], of the features that it was fitted to.
        map: float64 [D, D].
    """

    mean: np.ndarray
    map: np.ndarray

    def __call__(self, x_VD: np.ndarray) -> np.ndarray:
        """Returns whitened features: float32 [V, D]."""
        return ((x_VD - self.mean) @ self.map).astype(np.float32)


def whitened_means(features: Features, videos: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the whitened mean of each video's windows: float32 [V, D].

    Args:
        videos: rows to which the whitening is fitted.

    Raises:
        VidsslError: as :func:`fit_whitening`.
    """
    return fit_whitening(features, videos)(features.video_means())


def fit_whitening(features: Features, videos: Sequence[int] | np.ndarray) -> Whitening:
    """Fits a whitening to the windows of some videos.

    With V·diag(e)·Vᵀ the covariance of unit windows around their video's mean, the map is
    V·diag(e + 0.1·mean(e))^−½.

    Args:
        videos: rows of `features`: those of the training part, since nothing may be fitted to
            test videos.

    Raises:
        VidsslError: no video has two windows that differ.
    """
    chosen = np.zeros(len(features.ids), bool)
    chosen[np.asarray(videos)] = True
    counts = np.diff(features.offsets)
    of_window = np.repeat(np.arange(len(counts)), counts)
    means_VD = features.video_means().astype(np.float64)
    apart_WD = (features.unit_windows() - means_VD[of_window])[chosen[of_window]]
    variance, directions = np.linalg.eigh(apart_WD.T @ apart_WD / len(apart_WD))
    variance = np.maximum(variance, 0)  # rounding may go below
    if not variance.any():
        raise VidsslError(
            "features cannot be whitened: every training video has one window, or windows that are "
            "all equal; give --metric centred, or a smaller --hop"
        )
    share = (variance + REGULARISATION * variance.mean()) ** -0.5
    return Whitening(means_VD[chosen].mean(0), directions * share)
