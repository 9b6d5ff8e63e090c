"""Reads the annotations of an artifact: labels, groups and splits of a pack's videos."""

from __future__ import annotations

from collections.abc import Sequence

from vidssl.dataset.annotations import ANNOTATIONS_FILE, Annotations
from vidssl.workspace.artifacts import Artifact


def read_annotations(artifact: Artifact, ids: Sequence[str]) -> Annotations:
    """Returns the annotations of the videos `ids`; those that the artifact lacks have no label.

    Raises:
        VidsslError: the file is missing, was changed, or is no table of annotations.
    """
    path = artifact.path / ANNOTATIONS_FILE
    return Annotations.parse(artifact.files.read(ANNOTATIONS_FILE), path, ids)
