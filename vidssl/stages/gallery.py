"""The gallery that queries are compared with: a pack's videos and what encoders see in them.

Legend: V videos of the gallery, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidssl.annotations import Annotations
from vidssl.artifacts import Artifact, Workspace
from vidssl.backbones import Encoder
from vidssl.checkpoints import checkpoint_encoder
from vidssl.features import Features, Protocol
from vidssl.neighbours import centred_unit
from vidssl.progress import SILENT, Progress
from vidssl.shards import ShardReader
from vidssl.stages.embed import features_of
from vidssl.stages.evaluation import Subject
from vidssl.stages.inputs import find_annotations


@dataclass(frozen=True)
class Stream:
    """One encoder with its features of the gallery.

    Attributes:
        mean: the gallery's mean [D], which centres gallery and query alike.
        videos: centred unit features of the gallery's videos [V, D].
    """

    subject: Subject
    encoder: Encoder
    features: Features
    mean: np.ndarray
    videos: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """The pack, opened, with the features of every stream that is compared.

    Attributes:
        labels: of its videos, None where there is none [V].
    """

    pack: Artifact
    reader: ShardReader
    labels: list[str | None]
    streams: list[Stream]

    @cached_property
    def videos(self) -> np.ndarray:
        """Centred unit features of all streams side by side [V, ΣD]."""
        return np.hstack([stream.videos for stream in self.streams])

    def name(self, video: int) -> str:
        """Gives the path of a video relative to the packed folder."""
        return self.reader.video_id(video).rpartition("#")[0]


def open_gallery(
    workspace: Workspace,
    subjects: Sequence[Subject],
    protocol: Protocol,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Gallery:
    """Opens the subjects' pack with the features of all its videos, train and test alike."""
    pack = subjects[0].pack
    shown = " + ".join(subject.checkpoint.label for subject in subjects)
    progress.say(f"retrieve: {shown}, gallery {pack.label}")
    streams = []
    for subject in subjects:
        _, features = features_of(workspace, subject, protocol, device, progress)
        encoder = checkpoint_encoder(subject.checkpoint, subject.stream)
        means = features.video_means()
        mean = means.mean(0, dtype=np.float64)
        streams.append(Stream(subject, encoder, features, mean, centred_unit(means, mean)))
    reader = ShardReader(pack.path)
    return Gallery(pack, reader, _labels(workspace, pack, reader), streams)


def _labels(workspace: Workspace, pack: Artifact, reader: ShardReader) -> list[str | None]:
    artifact = find_annotations(workspace, pack)
    if artifact is None:
        return [None] * len(reader)
    ids = [reader.video_id(v) for v in range(len(reader))]
    known = Annotations.load(artifact.path, ids)
    return [known.classes[k] if k >= 0 else None for k in known.labels]
