"""Reports how well class probabilities classify the test part of a split, and writes the report.

Legend: V videos of the pack, N test videos, K classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vidssl.base.files import atomic_write, write_json
from vidssl.evaluation.baseline_figures import BaselineFigures
from vidssl.evaluation.evaluated_encoders import EncoderOnPack, checkpoint_labels
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.evaluation.standard_error import standard_error
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.run import Run
from vidssl.workspace.stage_result import StageResult

RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.csv"
TOP = 5


@dataclass(frozen=True)
class ClassRow:
    """One class of the test part.

    Attributes:
        accuracy: share of its test clips that were classified correctly; None without test clips.
        confused_with: the most frequent wrong answer; None without a mistake.
        confused: how many test clips got that answer.
    """

    name: str
    test_clips: int
    accuracy: float | None
    confused_with: str | None
    confused: int


@dataclass(frozen=True)
class ViewRow:
    """The results of one of several views by itself; fields as in the whole report."""

    checkpoint: str
    stream: str
    top1: float
    error: float
    top5: float | None
    top5_error: float | None
    train_top1: float | None


@dataclass(frozen=True)
class ReportLabels:
    """The names of what was classified, for a report: encoders or a baseline, and the pack.

    Attributes:
        checkpoint: its label; of several views all labels, joined by " + "; or a baseline's name.
        view: its name; of several views all names, joined by " + ".
    """

    checkpoint: str
    view: str
    pack: str

    @classmethod
    def of(cls, subjects: Sequence[EncoderOnPack]) -> ReportLabels:
        """Returns the labels of the encoders of some views."""
        views = " + ".join(subject.view for subject in subjects)
        return cls(" + ".join(checkpoint_labels(subjects)), views, subjects[0].pack.label)


@dataclass(frozen=True)
class ClassificationReport:
    """The results of a classifier on the test part.

    Attributes:
        checkpoint, stream, pack: as in :class:`ReportLabels`; `stream` is its view.
        top1, top5: accuracies from 0 to 1; top5 is None with five classes or fewer, where it would
            always be 1.
        error, top5_error: one standard error of top1 and of top5.
        chance: share of the test part's most frequent class: the accuracy of a constant answer.
        train_top1: accuracy on the training part, which tells weak features from overfitting;
            None: not measured.
        classes: one row per class.
        confusion: number of test clips by true class (row) and answer (column).
        streams: one row for each of several averaged views; else empty.
    """

    checkpoint: str
    stream: str
    pack: str
    split: str
    train_clips: int
    test_clips: int
    top1: float
    error: float
    top5: float | None
    top5_error: float | None
    chance: float
    train_top1: float | None
    classes: list[ClassRow]
    confusion: list[list[int]]
    streams: list[ViewRow] = field(default_factory=list)

    def as_view_row(self) -> ViewRow:
        """Returns this report as one row in the report of an average."""
        return ViewRow(
            self.checkpoint, self.stream, self.top1, self.error, self.top5, self.top5_error,
            self.train_top1,
        )  # fmt: skip


@dataclass(frozen=True)
class ClassificationResult:
    """The artifact of a classification, its report, and the baselines on the same split."""

    stage: StageResult
    report: ClassificationReport | None
    baselines: list[BaselineFigures] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found: dict[str, Any] = {"results": asdict(self.report)} if self.report else {}
        if self.baselines:
            found["baselines"] = [asdict(each) for each in self.baselines]
        return self.stage.as_dict() | found


# ── measuring ────────────────────────────────────────────────────────────────────────────────


def measure_accuracy(
    share_NK: np.ndarray,
    labelled: LabelledSplit,
    of: ReportLabels,
    train_top1: float | None = None,
    views: Sequence[ClassificationReport] = (),
) -> ClassificationReport:
    """Compares class probabilities of the test videos with their labels.

    Args:
        share_NK: probabilities, one row for each of `labelled.test`, in that order.
        train_top1: as in :class:`ClassificationReport`.
        views: the report of each of several views by itself.
    """
    classes = len(labelled.classes)
    truth, answers = labelled.labels[labelled.test], ranked(share_NK)
    confusion: np.ndarray = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, answers[:, 0]), 1)
    count = len(truth)
    top1 = float((answers[:, 0] == truth).mean())
    top5 = float((answers[:, :TOP] == truth[:, None]).any(1).mean()) if classes > TOP else None
    return ClassificationReport(
        checkpoint=of.checkpoint,
        stream=of.view,
        pack=of.pack,
        split=labelled.selection.name,
        train_clips=len(labelled.train),
        test_clips=count,
        top1=top1,
        error=standard_error(top1, count),
        top5=top5,
        top5_error=None if top5 is None else standard_error(top5, count),
        chance=float(np.bincount(truth).max() / count),
        train_top1=train_top1,
        classes=[class_row(confusion, k, labelled.classes) for k in range(classes)],
        confusion=confusion.tolist(),
        streams=[report.as_view_row() for report in views],
    )


def ranked(share_NK: np.ndarray) -> np.ndarray:
    """Returns the classes of each row by falling probability [N, K]; equal ones in class order."""
    return np.argsort(-share_NK, axis=1, kind="stable")


def class_row(confusion_KK: np.ndarray, k: int, names: Sequence[str]) -> ClassRow:
    """Returns the row of class k from the confusion matrix."""
    row = confusion_KK[k].copy()
    count, right = int(row.sum()), int(row[k])
    row[k] = 0
    wrong = int(row.max())
    return ClassRow(
        name=names[k],
        test_clips=count,
        accuracy=right / count if count else None,
        confused_with=names[int(row.argmax())] if wrong else None,
        confused=wrong,
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────


def publish_report(
    run: Run,
    report: ClassificationReport,
    share_NK: np.ndarray,
    labelled: LabelledSplit,
    digest: str,
) -> ClassificationResult:
    """Writes results.json and predictions.csv, and publishes the run.

    Args:
        digest: identity of the artifact's content.
    """
    write_json(run.folder / RESULTS_FILE, asdict(report))
    atomic_write(run.folder / PREDICTIONS_FILE, _predictions(share_NK, labelled))
    artifact = run.publish(digest, _summary(report))
    return ClassificationResult(StageResult(artifact, notes=labelled.notes), report)


def read_report(artifact: Artifact) -> ClassificationReport:
    """Reads the results of a probe or of a finetuned network.

    Raises:
        VidsslError: the file is missing, or was changed.
    """
    return artifact.files.record(ClassificationReport, RESULTS_FILE)


def reused_result(artifact: Artifact, labelled: LabelledSplit) -> ClassificationResult:
    """Returns the result of a classification that was finished before."""
    stage = StageResult(artifact, reused=True, notes=labelled.notes)
    return ClassificationResult(stage, read_report(artifact))


def _summary(report: ClassificationReport) -> dict[str, Any]:
    """Returns the figures for the artifact's summary."""
    return {
        "top1": report.top1,
        "top5": report.top5,
        "error": report.error,
        "split": report.split,
        "test_clips": report.test_clips,
    }


def _predictions(share_NK: np.ndarray, labelled: LabelledSplit) -> bytes:
    """Returns a CSV table: each test video's label, and its most probable classes."""
    shown = min(TOP, len(labelled.classes))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = [f(k) for k in range(1, shown + 1) for f in ("class_{}".format, "share_{}".format)]
    table.writerow(["id", "label", *head])
    for video, share, answers in zip(
        labelled.test, share_NK, ranked(share_NK)[:, :shown], strict=True
    ):
        cells = [c for k in answers for c in (labelled.classes[k], f"{share[k]:.4f}")]
        table.writerow([labelled.ids[video], labelled.classes[labelled.labels[video]], *cells])
    return text.getvalue().encode()
