"""Reads which test videos an evaluation got right, from the tables that it left.

`neighbours.csv` has the nearest train videos of each test video, `predictions.csv` the answers of a
classifier (docs/formats.md).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from vidssl.base.stored_json import DamagedFile
from vidssl.evaluation.classification import PREDICTIONS_FILE
from vidssl.evaluation.recall import NEIGHBOURS_FILE
from vidssl.workspace.artifacts import Artifact

NEIGHBOUR_COLUMNS = ("query", "label", "rank", "neighbour", "neighbour_label", "similarity")
ANSWER_COLUMNS = ("id", "label", "class_1", "share_1")


@dataclass(frozen=True)
class Found:
    """One train video among the nearest of a test video."""

    video: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Answered:
    """A test video, its label, and what was answered.

    Attributes:
        nearest: its nearest train videos, nearest first; empty for a classifier.
        answer: the label of the nearest, or the classifier's most probable class.
    """

    video: str
    label: str
    answer: str
    nearest: tuple[Found, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.answer == self.label


def read_answers(artifact: Artifact) -> list[Answered]:
    """Returns each test video of a retrieval, a probe or a finetuned network, with its answer.

    Raises:
        VidsslError: the table is missing, was changed, or is none.
    """
    if artifact.kind == "retrieval":
        return _of_neighbours(artifact)
    rows = _rows(artifact, PREDICTIONS_FILE, ANSWER_COLUMNS)
    return [Answered(row["id"], row["label"], row["class_1"]) for row in rows]


def _of_neighbours(artifact: Artifact) -> list[Answered]:
    found: dict[str, list[Found]] = {}
    labels: dict[str, str] = {}
    for row in _rows(artifact, NEIGHBOURS_FILE, NEIGHBOUR_COLUMNS):
        labels[row["query"]] = row["label"]
        try:
            similarity = float(row["similarity"])
        except ValueError:
            where = artifact.files.where(NEIGHBOURS_FILE)
            raise DamagedFile(f"{where} is damaged: it has a similarity that is none") from None
        nearest = found.setdefault(row["query"], [])
        nearest.append(Found(row["neighbour"], row["neighbour_label"], similarity))
    return [
        Answered(video, labels[video], nearest[0].label, tuple(nearest))
        for video, nearest in found.items()
    ]


def _rows(artifact: Artifact, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    where = artifact.files.where(name)
    try:
        text = artifact.files.read(name).decode("utf-8")
    except UnicodeDecodeError:
        raise DamagedFile(f"{where} is damaged: it is not UTF-8 text") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(table.fieldnames or ())[: len(columns)] != columns:
        raise DamagedFile(f"{where} is damaged: it has not the columns {', '.join(columns)}")
    return iter(table)
