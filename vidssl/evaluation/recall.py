"""Measures recall at k and mAP of test videos that query train videos, and writes the report.

Published protocol (CoCLR and ViCC, §4 of both): the features of each part are centred by its own
mean and scaled to unit length; the similarity is the cosine, and that of two views the sum of
both. A query is a hit if one of its first k neighbours has its label.

Legend: V videos of the pack, D feature width.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vidssl.base.files import atomic_write, write_json
from vidssl.evaluation.average_precision import MeanPrecision, mean_precision
from vidssl.evaluation.baseline_figures import BaselineFigures
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.evaluation.neighbours import (
    PUBLISHED_KS,
    Neighbours,
    Recall,
    centred_unit,
    recall_at,
    top_k,
)
from vidssl.evaluation.whitening import METRICS
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.run import Run
from vidssl.workspace.stage_result import StageResult

RESULTS_FILE = "results.json"
NEIGHBOURS_FILE = "neighbours.csv"
LISTED = 20


@dataclass(frozen=True)
class OtherMetric:
    """R@k and mAP of the same features by another metric."""

    metric: str
    recall: list[Recall]
    precision: MeanPrecision | None


@dataclass(frozen=True)
class RetrievalReport:
    """The share of test videos that find their class among the train videos.

    Attributes:
        features: labels of the compared checkpoints, or the name of a baseline.
        queries, gallery: numbers of labelled videos in the test and train part.
        recall: one row per k.
        precision: mAP; None in reports of version 0.2, or where no query's label is in the gallery.
        metric: how the features are compared, one of :data:`vidssl.evaluation.whitening.METRICS`.
        other: the same by the other metric, where it was measured.
    """

    features: str
    pack: str
    split: str
    queries: int
    gallery: int
    recall: list[Recall]
    precision: MeanPrecision | None = None
    metric: str = "centred"
    other: OtherMetric | None = None

    def at(self, k: int) -> Recall:
        """Returns the row of one k."""
        return next(row for row in self.recall if row.k == k)


@dataclass(frozen=True)
class RetrievalResult:
    """The retrieval artifact, its report, and the baselines on the same split."""

    stage: StageResult
    report: RetrievalReport | None
    baselines: list[BaselineFigures] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found: dict[str, Any] = {"results": asdict(self.report)} if self.report else {}
        if self.baselines:
            found["baselines"] = [asdict(each) for each in self.baselines]
        return self.stage.as_dict() | found


def measure_recall(
    views_VD: Sequence[np.ndarray],
    labelled: LabelledSplit,
    features: str,
    pack: Artifact,
    device: str = "cpu",
    ks: Sequence[int] = PUBLISHED_KS,
    metric: str = "centred",
    others_VD: Sequence[np.ndarray] = (),
) -> tuple[RetrievalReport, Neighbours]:
    """Measures R@k and mAP of the video features of one or several views.

    Args:
        views_VD: for each view the features of all videos of the pack [V, D].
        features: their name in the report.
        metric: what `views_VD` are.
        others_VD: the same features by the other metric; none: it is not measured.
    """
    found, table, precision = _compare(views_VD, labelled, device, ks)
    other = None
    if others_VD:
        (name,) = set(METRICS) - {metric}
        other = OtherMetric(name, *_compare(others_VD, labelled, device, ks)[1:])
    report = RetrievalReport(
        features, pack.label, labelled.selection.name, len(labelled.test), len(labelled.train),
        table, precision, metric, other,
    )  # fmt: skip
    return report, found


def _compare(
    views_VD: Sequence[np.ndarray], labelled: LabelledSplit, device: str, ks: Sequence[int]
) -> tuple[Neighbours, list[Recall], MeanPrecision | None]:
    """Returns the test videos' nearest train videos, R@k, and mAP."""
    # Unit rows side by side: their dot product is the sum of the views' cosines.
    queries = np.hstack([centred_unit(x[labelled.test]) for x in views_VD])
    gallery = np.hstack([centred_unit(x[labelled.train]) for x in views_VD])
    found = top_k(queries, gallery, max(ks), device)
    labels = labelled.labels[labelled.test], labelled.labels[labelled.train]
    precision = mean_precision(queries, gallery, *labels, device)
    return found, recall_at(found.index, *labels, ks), precision


def publish_recall(
    run: Run, report: RetrievalReport, found: Neighbours, labelled: LabelledSplit
) -> Artifact:
    """Writes results.json and neighbours.csv, and publishes the retrieval artifact."""
    table = _neighbour_table(found, labelled)
    write_json(run.folder / RESULTS_FILE, asdict(report))
    atomic_write(run.folder / NEIGHBOURS_FILE, table)
    digest = canonical_digest(
        {"run": run.identity, "report": asdict(report), "neighbours": table.decode()}
    )
    summary: dict[str, Any] = {f"R@{row.k}": row.recall for row in report.recall}
    if report.precision is not None:
        summary["mAP"] = report.precision.mean
    summary |= {"split": report.split, "queries": report.queries, "gallery": report.gallery}
    return run.publish(digest, summary)


def read_report(artifact: Artifact) -> RetrievalReport:
    """Reads the report in a retrieval artifact.

    Raises:
        VidsslError: the file is missing, or was changed.
    """
    return artifact.files.record(RetrievalReport, RESULTS_FILE)


def reused_result(artifact: Artifact, labelled: LabelledSplit) -> RetrievalResult:
    """Returns the result of a retrieval that was finished before."""
    stage = StageResult(artifact, reused=True, notes=labelled.notes)
    return RetrievalResult(stage, read_report(artifact))


def _neighbour_table(found: Neighbours, labelled: LabelledSplit) -> bytes:
    """Returns a CSV table of the nearest 20 train videos of each test video."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["query", "label", "rank", "neighbour", "neighbour_label", "similarity"])
    for row, video in enumerate(labelled.test):
        own = [labelled.ids[video], labelled.classes[labelled.labels[video]]]
        nearest = labelled.train[found.index[row, :LISTED]]
        for rank, (other, value) in enumerate(zip(nearest, found.similarity[row], strict=False), 1):
            label = labelled.classes[labelled.labels[other]]
            table.writerow([*own, rank, labelled.ids[other], label, f"{value:.4f}"])
    return text.getvalue().encode()
