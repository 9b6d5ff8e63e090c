"""Opens the videos of a pack that a run is trained on: the train part of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.dataset.annotations import Annotations
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import FRAMES_ROLE, Artifact
from vidssl.workspace.find_inputs import find_annotations
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class TrainingData:
    """A pack with its annotations, and the videos of it that are trained on.

    Attributes:
        split: the split that was used: a column of the annotations, "80/20" or "all".
        videos: those of the split's train part.
        note: a phrase for the user that says how the train part was chosen.
    """

    pack: Artifact
    annotations: Artifact | None
    split: str
    classes: list[str]
    videos: TrainingVideos
    note: str

    def parents(self, more: Mapping[str, Artifact] | None = None) -> dict[str, Artifact]:
        """Returns the parents of a run on this data: the pack, `more`, and the annotations."""
        table = {} if self.annotations is None else {"annotations": self.annotations}
        return {"pack": self.pack, **(more or {}), **table}

    def in_words(self, recipe: str) -> str:
        """Returns what a run says of its data and recipe when it begins."""
        each = "segments" if FRAMES_ROLE in self.pack.parents else "videos"
        return f"{len(self.videos)} training {each} ({self.note}), recipe {recipe}"


def training_data(
    workspace: Workspace, pack: Artifact, split: str | None, seed: int
) -> TrainingData:
    """Opens a pack and selects the train part of a split."""
    reader = open_shards(pack)
    artifact = find_annotations(workspace, pack)
    ids = [reader.video_id(i) for i in range(len(reader))]
    annotations = read_annotations(artifact, ids) if artifact else Annotations.unlabelled(ids)
    selection = annotations.select(split, seed)
    train = np.asarray(selection.train)
    if len(train) == 0:
        raise VidsslError(f"split {selection.name} of {pack.label} has no training video")
    videos = TrainingVideos(
        reader=reader,
        index=train,
        source=np.asarray(annotations.groups)[train],
        label=np.asarray(annotations.labels)[train],
    )
    return TrainingData(
        pack, artifact, selection.name, list(annotations.classes), videos, selection.note
    )


def data_of_split(pack: Artifact, labelled: LabelledSplit) -> TrainingData:
    """Returns the labelled videos of the train part of a split that is opened already."""
    train = labelled.train
    videos = TrainingVideos(
        reader=labelled.reader,
        index=train,
        source=np.asarray(labelled.annotations.groups)[train],
        label=labelled.labels[train],
    )
    selection = labelled.selection
    return TrainingData(
        pack, labelled.artifact, selection.name, list(labelled.classes), videos, selection.note
    )
