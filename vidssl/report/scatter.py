"""Lays the videos out in a plane by t-SNE of their features (van der Maaten and Hinton 2008).

The views of one pack are laid out for the same videos, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidssl.base.optional_packages import require_extra
from vidssl.report.embedded_runs import EmbeddedRun

MOST_VIDEOS = 600
PERPLEXITY = 30.0
MOST_CLUSTERS = 12


@dataclass(frozen=True)
class Point:
    """One video: its place from 0 to 100, and its numbers for colouring; −1: none."""

    x: float
    y: float
    video: int
    label: int
    group: int
    cluster: int


@dataclass(frozen=True)
class Scatter:
    """One run's layout.

    Attributes:
        central: the most central video of each cluster, as numbers in the list of videos.
    """

    run: str
    points: list[Point]
    central: list[list[int]]


def require_tsne() -> None:
    """Checks that scikit-learn is installed.

    Raises:
        VidsslError: it is not; the sentence says how to install it.
    """
    require_extra("report", "the picture of all features (t-SNE)", "sklearn")


def chosen_videos(run: EmbeddedRun) -> list[str]:
    """Returns the videos that are laid out: all, or evenly spaced ones where there are many."""
    ids = run.features.ids
    rows = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MOST_VIDEOS)).astype(int))
    return [ids[row] for row in rows]


def scatter(
    run: EmbeddedRun,
    videos: Sequence[str],
    label_V: np.ndarray,
    group_V: np.ndarray,
    clusters: int,
) -> Scatter:
    """Lays out videos by one run's features, and clusters them by k-means.

    Args:
        label_V, group_V: of the videos, −1 for none.
        clusters: how many; at most as many as there are videos.
    """
    from sklearn.cluster import KMeans
    from sklearn.manifold import TSNE

    rows = [run.row_of[video] for video in videos]
    features_VD = run.means[rows]
    perplexity = min(PERPLEXITY, max(1.0, (len(rows) - 1) / 3))
    place_V2 = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features_VD)
    low, high = place_V2.min(0), place_V2.max(0)
    place_V2 = 3 + 94 * (place_V2 - low) / np.maximum(high - low, 1e-9)
    found = KMeans(min(clusters, len(rows)), n_init=4, random_state=0).fit(features_VD)
    points = [
        Point(round(float(x), 2), round(float(y), 2), v, int(label_V[v]), int(group_V[v]),
              int(found.labels_[v]))
        for v, (x, y) in enumerate(place_V2)
    ]  # fmt: skip
    distance_VK = found.transform(features_VD)
    central = []
    for cluster in range(distance_VK.shape[1]):
        members = np.flatnonzero(found.labels_ == cluster)
        central.append([int(v) for v in members[distance_VK[members, cluster].argsort()][:5]])
    return Scatter(run.name, points, central)


def agreement(a_V: np.ndarray, b_V: np.ndarray) -> float | None:
    """Returns the adjusted mutual information of two divisions: 0 by chance, 1 where they agree.

    None where fewer than two videos have both.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    both = (a_V >= 0) & (b_V >= 0)
    if both.sum() < 2:
        return None
    return float(adjusted_mutual_info_score(a_V[both], b_V[both]))
