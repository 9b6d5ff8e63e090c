"""Opens a pack with its labels and one of its splits, for all evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.dataset.annotations import Annotations
from vidssl.dataset.splits import Selection
from vidssl.evaluation.evaluated_encoders import EncoderOnPack, check_encoder_options, find_subjects
from vidssl.evaluation.leakage import leakage
from vidssl.evaluation.options import EvaluationOptions
from vidssl.evaluation.split_to_evaluate import select_split, split_seed, too_few, without_label
from vidssl.shards import ShardReader, open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.find_inputs import find_annotations
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class LabelledSplit:
    """A pack, the annotations of its videos, and the split to evaluate.

    Attributes:
        ids: of all videos of the pack [V]; `annotations` and `selection` are aligned to them.
        artifact: the artifact of the annotations.
        split_seed: the seed of a randomly drawn split.
        train, test: int64, numbers of the labelled videos in each part.
        notes: sentences that the user should see.
    """

    reader: ShardReader
    ids: list[str]
    annotations: Annotations
    artifact: Artifact
    selection: Selection
    split_seed: int
    train: np.ndarray
    test: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes."""
        return self.annotations.classes

    @property
    def labels(self) -> np.ndarray:
        """The class of each video, −1 without a label: int64 [V]."""
        return self.annotations.labels


def find_labels(
    workspace: Workspace,
    pack: Artifact,
    checkpoints: Sequence[Artifact],
    split: str | None,
    seed: int = 0,
) -> LabelledSplit:
    """Opens a pack with its newest annotations, and selects a split.

    Args:
        checkpoints: to be tested; the notes say whether they were trained on test videos.
        split: None: the split that the first checkpoint was trained with.
        seed: of a randomly drawn split, if there is no checkpoint.

    Raises:
        VidsslError: no labels, no such split, or a part of it without a labelled video.
    """
    reader = open_shards(pack)
    ids = [reader.video_id(v) for v in range(len(reader))]
    artifact = find_annotations(workspace, pack)
    if artifact is None:
        raise MissingInput(_no_labels(pack))
    annotations = read_annotations(artifact, ids)
    if not np.any(annotations.labels >= 0):
        raise MissingInput(_no_labels(pack))
    if checkpoints:
        seed = split_seed(checkpoints[0], seed)
    trained_with = checkpoints[0].recipe.get("split") if checkpoints else None
    selection = select_split(annotations, split, trained_with, seed)
    train, test = (
        part[annotations.labels[part] >= 0] for part in (selection.train, selection.test)
    )
    for name, part in (("train", train), ("test", test)):
        if len(part) == 0:
            raise VidsslError(
                f"the {name} part of {selection.name} in {artifact.label} has no labelled video"
            )
    notes = without_label(selection, train, test)
    for checkpoint in {c.digest: c for c in checkpoints}.values():  # may hold several views
        notes += leakage(workspace, checkpoint, [reader.whole_id(int(v)) for v in test])
    notes += too_few(len(test))
    return LabelledSplit(reader, ids, annotations, artifact, selection, seed, train, test, notes)


def find_labelled_subjects(
    workspace: Workspace, options: EvaluationOptions
) -> tuple[list[EncoderOnPack], LabelledSplit]:
    """Checks the options by themselves, finds the encoders, and opens their labelled pack.

    Raises:
        UsageError: as for :func:`vidssl.evaluation.evaluated_encoders.check_encoder_options`.
        VidsslError: no checkpoint, no labels, or no such split.
    """
    check_encoder_options(options.checkpoints, options.streams, options.device, options.name)
    subjects = find_subjects(workspace, options.checkpoints, options.streams, options.pack)
    checkpoints = [subject.checkpoint for subject in subjects]
    return subjects, find_labels(workspace, subjects[0].pack, checkpoints, options.split)


def _no_labels(pack: Artifact) -> str:
    return (
        f"{pack.label} has no labels, and this needs them: give each class a folder of its own, "
        "or name a table of labels with: vidssl pack VIDEOS --labels FILE.csv"
    )


def check_trainable(labelled: LabelledSplit, what: str = "probe") -> None:
    """Checks that the train part of a split has at least two classes.

    Args:
        what: is to be trained, for the sentence of the error.

    Raises:
        VidsslError: it has only one class.
    """
    known = np.unique(labelled.labels[labelled.train])
    if len(known) < 2:
        raise VidsslError(
            f"a {what} tells classes apart, and the train part of {labelled.selection.name} "
            f"has only {labelled.classes[known[0]]}"
        )
