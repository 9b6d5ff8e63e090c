"""Gathers the layouts of all runs of a pack, a sheet of small frames, and what clusters follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidssl.dataset.annotations import Annotations
from vidssl.report.embedded_runs import EmbeddedRun
from vidssl.report.film_strips import FilmCutter
from vidssl.report.picture_data import jpeg_uri
from vidssl.report.scatter import Scatter, agreement, chosen_videos, scatter

SIDE = 56  # pixels of a small frame
MOST_RUNS = 4
COLOURINGS = 8  # of the mean colour


@dataclass(frozen=True)
class Agreement:
    """How far one run's clusters follow something else: adjusted mutual information.

    Attributes:
        label, group: None where there are none, or each video is a group of its own.
    """

    run: str
    label: float | None
    group: float | None
    colour: float | None

    def words(self) -> str:
        """Says what the clusters follow most."""
        told = {"classes": self.label, "groups (the place of filming)": self.group,
                "the mean colour": self.colour}  # fmt: skip
        known = {name: value for name, value in told.items() if value is not None}
        if not known:
            return f"{self.run}: nothing is known that the clusters could follow"
        listed = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
        most = max(known, key=lambda name: known[name])
        if known[most] < 0.1:
            return f"{self.run}: its clusters follow none of these ({listed})"
        return f"{self.run}: its clusters follow {most} most ({listed})"


@dataclass(frozen=True)
class Clusters:
    """The layouts of all runs for the same videos.

    Attributes:
        names, labels, groups: of the videos.
        classes: names of the classes.
        sheet: small frames of all videos in rows of `columns`, a data URI.
    """

    scatters: Sequence[Scatter]
    names: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str]
    classes: Sequence[str]
    sheet: str
    columns: int
    side: int
    agreements: Sequence[Agreement]


def clusters_part(
    runs: Sequence[EmbeddedRun], annotations: Annotations | None, cutter: FilmCutter
) -> Clusters:
    """Lays out and clusters the videos of a pack by each run's features."""
    videos = chosen_videos(runs[0])
    rows = [cutter.reader.find(video) for video in videos]
    if annotations is None:
        annotations = Annotations.unlabelled(videos)
    frames = [_small(cutter, video) for video in videos]
    colour_V = _colours(frames)
    labels, groups = annotations.labels, annotations.groups
    shared = len(set(groups.tolist())) < len(groups)
    count = len(set(labels[labels >= 0].tolist())) or min(8, max(2, len(videos) // 5))
    found, agreements = [], []
    for run in runs[:MOST_RUNS]:
        laid = scatter(run, videos, labels, groups, count)
        cluster_V = np.array([point.cluster for point in laid.points])
        found.append(laid)
        agreements.append(
            Agreement(
                run.name,
                agreement(cluster_V, labels),
                agreement(cluster_V, groups) if shared else None,
                agreement(cluster_V, colour_V),
            )
        )
    columns = math.ceil(math.sqrt(len(videos)))
    classes = annotations.classes
    return Clusters(
        scatters=found,
        names=[cutter.reader.record(row or 0).path for row in rows],
        labels=[classes[label] if label >= 0 else "" for label in labels],
        groups=[annotations.group_names[group] for group in groups] if shared else [],
        classes=classes,
        sheet=_sheet(frames, columns),
        columns=columns,
        side=SIDE,
        agreements=agreements,
    )


def _small(cutter: FilmCutter, video: str) -> np.ndarray:
    """Returns the middle frame of a video as a square: uint8 [SIDE, SIDE, 3]."""
    picture = cutter.pictures(video, cutter.main, cutter.whole(video), 3)[1]
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    found: np.ndarray = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return found


def _colours(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Returns a number for the mean colour of each frame, by k-means."""
    from sklearn.cluster import KMeans

    mean_V3 = np.array([frame.reshape(-1, 3).mean(0) for frame in frames])
    found = KMeans(min(COLOURINGS, len(frames)), n_init=4, random_state=0).fit(mean_V3)
    labels: np.ndarray = found.labels_.astype(np.int64)
    return labels


def _sheet(frames: Sequence[np.ndarray], columns: int) -> str:
    rows = math.ceil(len(frames) / columns)
    sheet = np.zeros((rows * SIDE, columns * SIDE, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = SIDE * (number // columns), SIDE * (number % columns)
        sheet[top : top + SIDE, left : left + SIDE] = frame
    return jpeg_uri(sheet)
