"""Opens the shards of an artifact, after comparing them with what its manifest records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.shards.format import DamagedShard, Params
from vidssl.shards.reader import ShardReader
from vidssl.shards.segments import SEGMENTS_FILE, SegmentReader
from vidssl.views import get_view

SHARDS = "shard-*.h5"


class FilesOfSet(Protocol):
    """The files of an artifact (:class:`vidssl.workspace.payload.Payload`)."""

    def complete(self, pattern: str) -> list[Path]:
        """Returns the files that match, after comparing the whole list of files and sizes."""

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file, after comparing them with the recorded SHA-256."""

    def where(self, name: str) -> str:
        """Returns the path of a file, for sentences."""


class PublishedSet(Protocol):
    """What opening needs of an artifact (:class:`vidssl.workspace.artifacts.Artifact`)."""

    @property
    def label(self) -> str:
        """KIND/NAME/vNNN."""

    @property
    def digest(self) -> str:
        """Digest of the set of videos."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Its settings, the parameters of its views among them."""

    @property
    def files(self) -> FilesOfSet:
        """Its files."""

    def frames_of_segments(self) -> PublishedSet | None:
        """Returns the pack that holds the frames, where this one holds a table of segments."""


def open_shards(artifact: PublishedSet) -> ShardReader:
    """Opens the shards of a flow, view or pack artifact.

    Of a pack of segments, the shards of the whole videos are opened and read in segments.

    The list of files, their sizes, the ids and digests of the videos, the views' parameters and the
    number of frames are compared with the manifest. No frame is read: each has a checksum, which is
    compared when it is.

    Raises:
        VidsslError: a file is missing, too many, of another size or of another artifact.
        DamagedShard: the tables contradict each other, or the manifest.
    """
    frames = artifact.frames_of_segments()
    if frames is None:
        reader = ShardReader(artifact.files.complete(SHARDS))
    else:
        table = artifact.files.read(SEGMENTS_FILE)
        reader = SegmentReader(open_shards(frames), table, artifact.files.where(SEGMENTS_FILE))
    check_set(artifact, reader)
    return reader


def check_set(artifact: PublishedSet, reader: ShardReader) -> None:
    """Checks that opened shards hold the videos and views that a manifest records.

    Raises:
        DamagedShard: they do not.
    """
    if reader.digest != artifact.digest:
        raise _damaged(
            artifact,
            f"the videos of {artifact.label} ({reader.folder}) are not those that its digest "
            "names: a shard is of another artifact, or was changed",
        )
    for view, params in _recorded_views(artifact.recipe).items():
        if reader.views.get(view) != params:
            raise _damaged(
                artifact,
                f"the shards of {artifact.label} ({reader.folder}) have other parameters of view "
                f"{view} than {artifact.label} was made with",
            )
    _check_lengths(artifact, reader)


def _recorded_views(recipe: Mapping[str, Any]) -> dict[str, Params]:
    """Returns the parameters of the views in an artifact's recipe, as far as it has them."""
    views = recipe.get("views", {"flow": recipe["flow"]} if "flow" in recipe else {})
    return dict(views) if isinstance(views, Mapping) else {}


def _check_lengths(artifact: PublishedSet, reader: ShardReader) -> None:
    """Checks that each video has as many frames of a view as frames were decoded of it."""
    for view in reader.views:
        try:
            lag = get_view(view).lag
        except VidsslError:  # one of a user's own, which is not here
            continue
        wrong = np.flatnonzero(reader.frame_count(view) != reader.videos.frames - lag)
        if len(wrong):
            raise _damaged(
                artifact,
                f"{reader.file_of(int(wrong[0]))} of {artifact.label} is damaged: "
                f"{reader.video_id(int(wrong[0]))} has another number of {view} frames than its "
                "table says",
            )


def _damaged(artifact: PublishedSet, fault: str) -> DamagedShard:
    return DamagedShard(fault, f"to see more: vidssl verify {artifact.label}")
