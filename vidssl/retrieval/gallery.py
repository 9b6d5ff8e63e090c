"""The gallery that queries are compared with: the videos of a pack and their features.

Legend: V videos of the gallery, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidssl.backbones import Encoder
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.evaluated_encoders import EncoderOnPack, describe_subjects
from vidssl.evaluation.feature_cache import features_of
from vidssl.evaluation.features import Features, WindowProtocol
from vidssl.evaluation.neighbours import centred_unit
from vidssl.evaluation.whitening import Whitening, fit_whitening
from vidssl.shards import ShardReader, open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder
from vidssl.workspace.find_inputs import find_annotations
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class EncodedGallery:
    """The features of the gallery by one encoder.

    Attributes:
        mean: of the gallery's features [D]; it is subtracted from gallery and query.
        videos: centred unit features of the gallery's videos [V, D].
        whitening: fitted to the gallery, where its metric is "whitened".
    """

    subject: EncoderOnPack
    encoder: Encoder
    features: Features
    mean: np.ndarray
    videos: np.ndarray
    whitening: Whitening | None = None

    def comparable(self, x_ND: np.ndarray) -> np.ndarray:
        """Returns features as they are compared: centred or whitened, of unit length [N, D]."""
        return centred_unit(x_ND if self.whitening is None else self.whitening(x_ND), self.mean)


@dataclass(frozen=True)
class Gallery:
    """The opened pack, with the features of its videos by one or more encoders.

    Attributes:
        labels: of its videos [V]; None for a video without a label.
        subjects: the encoders, one of each view.
        embed: returns the features of all videos by one of them. The first time takes long, so it
            is called only when there is a query.
        metric: how features are compared, one of :data:`vidssl.evaluation.whitening.METRICS`.
    """

    pack: Artifact
    reader: ShardReader
    labels: list[str | None]
    subjects: Sequence[EncoderOnPack]
    embed: Callable[[EncoderOnPack], Features]
    metric: str = "centred"

    @cached_property
    def encoded(self) -> list[EncodedGallery]:
        """The features of all videos, train and test, by each encoder."""
        return [self._encode(subject) for subject in self.subjects]

    def _encode(self, subject: EncoderOnPack) -> EncodedGallery:
        features = self.embed(subject)
        encoder = checkpoint_encoder(subject.checkpoint, subject.view)
        means = features.video_means()
        whitening = None
        if self.metric == "whitened":
            whitening = fit_whitening(features, range(len(means)))
            means = whitening(means)
        mean = means.mean(0, dtype=np.float64)
        videos = centred_unit(means, mean)
        return EncodedGallery(subject, encoder, features, mean, videos, whitening)

    @cached_property
    def videos(self) -> np.ndarray:
        """Centred unit features by all encoders side by side [V, ΣD]."""
        return np.hstack([encoded.videos for encoded in self.encoded])

    def name(self, video: int) -> str:
        """Returns the path of a video relative to the packed folder; a segment's is its film's."""
        return self.reader.whole_id(video).rpartition("#")[0]


def open_gallery(
    workspace: Workspace,
    subjects: Sequence[EncoderOnPack],
    protocol: WindowProtocol,
    device: str | None = None,
    progress: Progress = SILENT,
    metric: str = "centred",
) -> Gallery:
    """Opens the pack of the encoders; features are computed when they are needed."""
    pack = subjects[0].pack
    progress.say(f"retrieve: {describe_subjects(subjects)}, gallery {pack.label}")

    def embed(subject: EncoderOnPack) -> Features:
        return features_of(workspace, subject, protocol, device, progress)[1]

    reader = open_shards(pack)
    return Gallery(pack, reader, _labels(workspace, pack, reader), subjects, embed, metric)


def _labels(workspace: Workspace, pack: Artifact, reader: ShardReader) -> list[str | None]:
    artifact = find_annotations(workspace, pack)
    if artifact is None:
        return [None] * len(reader)
    ids = [reader.video_id(v) for v in range(len(reader))]
    known = read_annotations(artifact, ids)
    return [known.classes[k] if k >= 0 else None for k in known.labels]
