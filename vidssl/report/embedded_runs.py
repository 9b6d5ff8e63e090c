"""Finds the features that a workspace holds of each checkpoint on a pack, and compares windows.

Nothing is embedded here: what was not measured has no features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidssl.evaluation.feature_cache import load_features
from vidssl.evaluation.features import Features
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_spec


@dataclass(frozen=True)
class Moment:
    """A range of frames of one video."""

    first: int
    last: int


@dataclass(frozen=True)
class EmbeddedRun:
    """One checkpoint's features of all videos of a pack.

    Attributes:
        window: frames that one window covers.
    """

    checkpoint: Artifact
    artifact: Artifact
    view: str
    features: Features
    window: int

    @property
    def name(self) -> str:
        """NAME/vNNN of the checkpoint."""
        return self.checkpoint.label.partition("/")[2]

    @cached_property
    def means(self) -> np.ndarray:
        """Centred features of the videos, of unit length: float32 [V, D]."""
        return _unit(self.features.video_means() - self._mean)

    @cached_property
    def windows(self) -> np.ndarray:
        """Centred windows of unit length: float32 [W, D]."""
        return _unit(self.features.unit_windows() - self._mean)

    @cached_property
    def _mean(self) -> np.ndarray:
        return self.features.video_means().mean(0)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """{id: row of the video}."""
        return {video: row for row, video in enumerate(self.features.ids)}

    def similarity(self, a: str, b: str) -> np.ndarray:
        """Returns the cosines of the windows of two videos: [windows of a, windows of b]."""
        of = [self.windows[self.features.of_video(self.row_of[video])] for video in (a, b)]
        return of[0] @ of[1].T

    def moments(self, video: str) -> list[Moment]:
        """Returns the frames of each window of a video."""
        starts = self.features.starts[self.features.of_video(self.row_of[video])]
        return [Moment(int(first), int(first) + self.window - 1) for first in starts]

    def matching(self, a: str, b: str) -> tuple[Moment, Moment]:
        """Returns the moments of two videos that are most alike."""
        cosines = self.similarity(a, b)
        row, column = divmod(int(cosines.argmax()), cosines.shape[1])
        return self.moments(a)[row], self.moments(b)[column]


def embedded_runs(artifacts: Iterable[Artifact], pack: Artifact) -> list[EmbeddedRun]:
    """Returns the newest features of each checkpoint on a pack.

    Raises:
        VidsslError: a file is missing or damaged.
    """
    known = {artifact.digest: artifact for artifact in artifacts}
    newest: dict[tuple[str, str], tuple[Artifact, Artifact]] = {}
    for artifact in known.values():
        checkpoint = known.get(artifact.parents.get("checkpoint", ""))
        if artifact.kind != "features" or checkpoint is None:
            continue
        if artifact.parents.get("pack") == pack.digest:
            view = str(artifact.recipe.get("stream"))
            newest[checkpoint.digest, view] = artifact, checkpoint
    return [
        EmbeddedRun(
            checkpoint, artifact, view, load_features(artifact),
            checkpoint_spec(checkpoint, view).window,
        )
        for (_, view), (artifact, checkpoint) in newest.items()
    ]  # fmt: skip


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: np.ndarray = (rows / np.maximum(length, 1e-12)).astype(np.float32)
    return found
