"""Measures recall at k of test videos that query train videos, and writes the report.

Published protocol (CoCLR and ViCC, §4 of both): the features of each part are centred by its own
mean and scaled to unit length; the similarity is the cosine, and that of two views the sum of
both. A query is a hit if one of its first k neighbours has its label.

Legend: V videos of the pack, D feature width.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidssl.base.files import atomic_write, write_json
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.evaluation.neighbours import (
    PUBLISHED_KS,
    Neighbours,
    Recall,
    centred_unit,
    recall_at,
    top_k,
)
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.results import StageResult
from vidssl.workspace.run import Run

RESULTS_FILE = "results.json"
NEIGHBOURS_FILE = "neighbours.csv"
LISTED = 20


@dataclass(frozen=True)
class RetrievalReport:
    """The share of test videos that find their class among the train videos.

    Attributes:
        features: labels of the compared checkpoints, or the name of a baseline.
        queries, gallery: numbers of labelled videos in the test and train part.
        recall: one row per k.
    """

    features: str
    pack: str
    split: str
    queries: int
    gallery: int
    recall: list[Recall]

    def at(self, k: int) -> Recall:
        """Returns the row of one k."""
        return next(row for row in self.recall if row.k == k)


@dataclass(frozen=True)
class RetrievalResult:
    """The retrieval artifact, and its report."""

    stage: StageResult
    report: RetrievalReport | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found = {"results": asdict(self.report)} if self.report else {}
        return self.stage.as_dict() | found


def measure_recall(
    views_VD: Sequence[np.ndarray],
    labelled: LabelledSplit,
    features: str,
    pack: Artifact,
    device: str = "cpu",
    ks: Sequence[int] = PUBLISHED_KS,
) -> tuple[RetrievalReport, Neighbours]:
    """Measures R@k of the video features of one or several views.

    Args:
        views_VD: for each view the features of all videos of the pack [V, D].
        features: their name in the report.
    """
    # Unit rows side by side: their dot product is the sum of the views' cosines.
    queries = np.hstack([centred_unit(x[labelled.test]) for x in views_VD])
    gallery = np.hstack([centred_unit(x[labelled.train]) for x in views_VD])
    found = top_k(queries, gallery, max(ks), device)
    table = recall_at(
        found.index, labelled.labels[labelled.test], labelled.labels[labelled.train], ks
    )
    report = RetrievalReport(
        features, pack.label, labelled.selection.name, len(queries), len(gallery), table
    )
    return report, found


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
