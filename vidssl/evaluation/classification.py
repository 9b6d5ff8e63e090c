"""What class probabilities are worth on the test part of a split: the report and its files.

Legend: V videos of the pack, N test videos, K classes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.files import atomic_write, write_json
from vidssl.evaluation.labelled import LabelledSplit
from vidssl.evaluation.neighbours import standard_error
from vidssl.evaluation.subjects import EncoderOnPack, checkpoints_of
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.results import StageResult

RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.csv"
TOP = 5


@dataclass(frozen=True)
class ClassRow:
    """One class of the test part.

    Attributes:
        accuracy: share of its test clips that were recognised; None without a test clip.
        confused_with: the class most of its mistakes went to, None without a mistake.
        confused: how many did.
    """

    name: str
    test_clips: int
    accuracy: float | None
    confused_with: str | None
    confused: int


@dataclass(frozen=True)
class StreamRow:
    """What one of several streams reaches by itself; fields as of the whole report."""

    checkpoint: str
    stream: str
    top1: float
    error: float
    top5: float | None
    top5_error: float | None
    train_top1: float | None


@dataclass(frozen=True)
class Classified:
    """What was classified: encoders, or what stands in for one, and the packed videos.

    Attributes:
        checkpoint: its label; of several streams all, joined by " + "; of a baseline its name.
        stream: the view; of several streams all, likewise.
    """

    checkpoint: str
    stream: str
    pack: str

    @classmethod
    def by(cls, subjects: Sequence[EncoderOnPack]) -> Classified:
        """Returns what is classified by the encoders of these streams."""
        streams = " + ".join(subject.stream for subject in subjects)
        return cls(" + ".join(checkpoints_of(subjects)), streams, subjects[0].pack.label)


@dataclass(frozen=True)
class ClassificationReport:
    """What a classifier reached on the test part.

    Attributes:
        checkpoint, stream, pack: as of :class:`Classified`.
        top1, top5: shares; top5 is None with five classes or fewer, where it says nothing.
        error: one standard error of top1; top5_error likewise.
        chance: share of the test part's commonest class, which a constant answer reaches.
        train_top1: on the training part, to tell a weak feature from an overfitted classifier;
            None where it was not measured.
        classes: one row per class.
        confusion: test clips by true class (row) and answer (column).
        streams: where probabilities of several streams were averaged, one row for each.
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
    streams: list[StreamRow] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassificationReport:
        """Reads what :func:`dataclasses.asdict` wrote."""
        classes = [ClassRow(**row) for row in data["classes"]]
        streams = [StreamRow(**row) for row in data.get("streams", [])]
        return cls(**{**data, "classes": classes, "streams": streams})

    def as_stream(self) -> StreamRow:
        """Returns the row that stands for this report beside other streams'."""
        return StreamRow(
            self.checkpoint, self.stream, self.top1, self.error, self.top5, self.top5_error,
            self.train_top1,
        )  # fmt: skip


@dataclass(frozen=True)
class ClassificationResult:
    """The artifact of a classification and what is in it."""

    stage: StageResult
    report: ClassificationReport | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found = {"results": asdict(self.report)} if self.report else {}
        return self.stage.as_dict() | found


# ── measuring ────────────────────────────────────────────────────────────────────────────────


def measure(
    share_NK: np.ndarray,
    labelled: LabelledSplit,
    of: Classified,
    train_top1: float | None = None,
    streams: Sequence[ClassificationReport] = (),
) -> ClassificationReport:
    """Counts what class probabilities of the test videos get right.

    Args:
        share_NK: one row for each of `labelled.test`, in that order.
        train_top1: as of :class:`ClassificationReport`.
        streams: what each of several streams reached by itself.
    """
    classes = len(labelled.classes)
    truth, answers = labelled.labels[labelled.test], ranked(share_NK)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, answers[:, 0]), 1)
    count = len(truth)
    top1 = float((answers[:, 0] == truth).mean())
    top5 = float((answers[:, :TOP] == truth[:, None]).any(1).mean()) if classes > TOP else None
    return ClassificationReport(
        checkpoint=of.checkpoint,
        stream=of.stream,
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
        streams=[report.as_stream() for report in streams],
    )


def ranked(share_NK: np.ndarray) -> np.ndarray:
    """Returns the classes of each row, likeliest first."""
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


def write_report(
    folder: Path, report: ClassificationReport, share_NK: np.ndarray, labelled: LabelledSplit
) -> None:
    """Writes results.json and predictions.csv."""
    write_json(folder / RESULTS_FILE, asdict(report))
    atomic_write(folder / PREDICTIONS_FILE, _predictions(share_NK, labelled))


def read_report(artifact: Artifact) -> ClassificationReport:
    """Reads the results of a probe or of a finetuned network."""
    text = (artifact.path / RESULTS_FILE).read_text()
    return ClassificationReport.from_dict(json.loads(text))


def summary_of(report: ClassificationReport) -> dict[str, Any]:
    """Returns the figures for the artifact's summary."""
    return {
        "top1": report.top1,
        "top5": report.top5,
        "error": report.error,
        "split": report.split,
        "test_clips": report.test_clips,
    }


def _predictions(share_NK: np.ndarray, labelled: LabelledSplit) -> bytes:
    """Returns one row per test video: the truth, then the likeliest classes with probabilities."""
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
