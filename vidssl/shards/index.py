"""The tables of shards: a row for every video, and where its frames are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.shards.format import SHARD_FORMAT, SHARD_KIND, DamagedShard, Params
from vidssl.shards.table_checks import (
    MOST_VIEWS,
    check_columns,
    check_offsets,
    file_size,
    group_in,
    read_params,
    table_in,
)
from vidssl.version import VERSION

# Datasets and what they hold: of the videos, and of a view's frames.
COLUMNS = {
    "id": "S", "path": "S", "digest": "S", "fps": "<f8",
    "frames": "<i8", "width": "<i8", "height": "<i8",
}  # fmt: skip
BLOB_TABLES = {"blobs": "|u1", "offsets": "<i8", "crc32": "<u4"}
# What h5py and NumPy raise for tables of another form.
UNREADABLE = (
    OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class ViewPlace:
    """The places of a view's datasets in one file, in bytes from the file's start.

    Attributes:
        blobs, offsets, crc32: starts of the three datasets.
        size: bytes of blobs.
        first_frame: int64 [videos + 1].
    """

    blobs: int
    offsets: int
    crc32: int
    size: int
    first_frame: np.ndarray


@dataclass(frozen=True)
class ShardTables:
    """One file's tables: parameters and place of each view, and the columns of its videos."""

    path: Path
    views: Mapping[str, Params]
    places: Mapping[str, ViewPlace]
    columns: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> ShardTables:
        """Reads one file's tables.

        Raises:
            VidsslError: it is no shard, has an unknown version, or may not be read.
            DamagedShard: it cannot be read, or its tables contradict each other.
        """
        try:
            size = file_size(path)
            with h5py.File(path, "r", locking=False) as file:
                _check_kind(path, file)
                views = group_in(file, "views")
                if not 1 <= len(views) <= MOST_VIEWS:
                    raise ValueError(f"it has {len(views)} views")
                groups = {name: group_in(views, name) for name in views}
                columns = _columns(group_in(file, "videos"), size)
                videos = len(columns["id"])
                return cls(
                    path,
                    views={name: read_params(group) for name, group in groups.items()},
                    places={name: _place(group, videos, size) for name, group in groups.items()},
                    columns=columns,
                )
        except PermissionError as error:
            raise VidsslError(f"{path} cannot be read: permission denied") from error
        except UNREADABLE as error:
            what = " ".join(str(error).split())
            raise DamagedShard(
                f"{path} cannot be read as a shard, it is damaged or cut short: {what:.300}"
            ) from error


def _check_kind(path: Path, file: h5py.File) -> None:
    if file.attrs.get("kind") != SHARD_KIND:
        raise VidsslError(f"{path} is no vidssl shard")
    version = int(file.attrs["format_version"])
    if version != SHARD_FORMAT:
        raise VidsslError(
            f"{path} has shard format version {version}, and this vidssl ({VERSION}) reads "
            f"version {SHARD_FORMAT}: use the vidssl that wrote it "
            f"({file.attrs.get('vidssl_version', 'unknown')})"
        )


def _columns(group: h5py.Group, size: int) -> dict[str, np.ndarray]:
    """Reads and checks the table of videos; notes are read when they are asked for."""
    table_in(group, "note", "S", size)
    columns = {name: table_in(group, name, kind, size)[()] for name, kind in COLUMNS.items()}
    check_columns(columns)
    return columns


def _place(group: h5py.Group, videos: int, size: int) -> ViewPlace:
    """Checks that a view's tables fit together and finds its datasets in the file."""
    tables = {name: table_in(group, name, kind, size) for name, kind in BLOB_TABLES.items()}
    first = table_in(group, "first_frame", "<i8", size)
    if len(first) != videos + 1:
        raise ValueError(f"the tables of {group.name} do not fit together")
    first_frame = first[()]
    frames = int(first_frame[-1])
    if (len(tables["offsets"]), len(tables["crc32"])) != (frames + 1, frames):
        raise ValueError(f"the tables of {group.name} do not fit together")
    if first_frame[0] != 0 or np.any(np.diff(first_frame) < 0):
        raise ValueError(f"the table of first frames of {group.name} does not rise")
    check_offsets(group, tables["offsets"], len(tables["blobs"]))
    # HDF5 gives no place to a dataset without a byte.
    blobs, offsets, crc32 = (tables[name].id.get_offset() or 0 for name in BLOB_TABLES)
    return ViewPlace(blobs, offsets, crc32, size=len(tables["blobs"]), first_frame=first_frame)


@dataclass(frozen=True)
class VideoTable:
    """One row per video over all shards, sorted by id, as numpy columns of V rows.

    Attributes:
        id, path, digest: UTF-8 bytes; :meth:`vidssl.shards.ShardReader.video_id` gives text.
        fps: frames per second, 0.0 when unknown.
        frames, width, height: of the source video.
        shard: number of its file.
        row: its row in that file.
        length: {view: stored frames}.
    """

    id: np.ndarray
    path: np.ndarray
    digest: np.ndarray
    fps: np.ndarray
    frames: np.ndarray
    width: np.ndarray
    height: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    length: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.id)


def join_tables(shards: Sequence[ShardTables]) -> VideoTable:
    """Joins the rows of all shards, sorted by id.

    So the number of a video depends neither on which process finished it first nor on how the
    videos are distributed over shards.
    """
    counts = [len(shard.columns["id"]) for shard in shards]
    columns = {name: np.concatenate([shard.columns[name] for shard in shards]) for name in COLUMNS}
    columns["shard"] = np.repeat(np.arange(len(shards)), counts)
    columns["row"] = np.concatenate([np.arange(count) for count in counts])
    lengths = {
        view: np.concatenate([np.diff(shard.places[view].first_frame) for shard in shards])
        for view in shards[0].views
    }
    order = np.argsort(columns["id"], kind="stable")
    return VideoTable(
        **{name: column[order] for name, column in columns.items()},
        length={view: length[order] for view, length in lengths.items()},
    )
