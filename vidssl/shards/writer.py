"""Writes shards: finished videos go to a spool, and a full spool becomes one HDF5 file.

What a process stored may wait for days until the set is published. So blobs are compared with
their checksums when they are copied into a shard, and the digest of each shard can be kept.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from vidssl.base.files import file_digest, fsync_folder, system_errors_name
from vidssl.base.text import agree, counted
from vidssl.shards.format import (
    SHARD_FORMAT,
    SHARD_KIND,
    Params,
    VideoRecord,
    check_same_views,
    data_digest,
    shard_files,
    shard_name,
    shard_number,
)
from vidssl.shards.index import ShardTables
from vidssl.shards.spool import Spool, SpooledVideo, read_journal, spool_files
from vidssl.shards.written_digests import note_digests
from vidssl.version import VERSION

SHARD_BYTES = 1 << 30


class ShardWriter:
    """Collects finished videos into shards; may be killed at any moment and opened again.

    Args:
        folder: of the shards; the work of an earlier writer there is continued.
        views: parameters of each view, recorded in every shard.
        shard_bytes: bytes of blobs after which a shard is written.
        note_digests: keep the SHA-256 of every shard beside it
            (:mod:`vidssl.shards.written_digests`), until the set is published.

    Attributes:
        digests: {id: digest} of the videos that are already in the folder.
        lost: a sentence for each file of the spool in which videos were damaged.
        lost_videos: ids of those whose blobs were; they are not in `digests` any more.

    Raises:
        VidsslError: the folder holds videos with other parameters, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        views: Mapping[str, Params],
        shard_bytes: int = SHARD_BYTES,
        note_digests: bool = False,
    ) -> None:
        self.folder = folder
        # Through JSON, as from a file, so that equal parameters compare equal.
        self.views: dict[str, Params] = json.loads(json.dumps(views))
        self.shard_bytes, self._note_digests = shard_bytes, note_digests
        self.digests: dict[str, str] = {}
        self.lost: list[str] = []
        self.lost_videos: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._spool = self._recover()

    @property
    def finished(self) -> set[str]:
        """Ids of the videos that are already in the folder."""
        return set(self.digests)

    def add(self, video: VideoRecord, blobs: Mapping[str, Sequence[bytes]]) -> None:
        """Stores one finished video; when this returns it survives a power cut.

        Args:
            video: its row in the table.
            blobs: for each of the writer's views the encoded frames.

        Raises:
            VidsslError: the disk is full; what was stored before is kept.
            ValueError: the video is in the folder already, or its views are not the writer's.
        """
        if video.id in self.digests or blobs.keys() != self.views.keys():
            raise ValueError(f"{video.id} cannot be added with views {list(blobs)}")
        with system_errors_name(self.folder):
            entry = self._spool.add(video, blobs)
        self.digests[video.id] = entry.digest
        if self._spool.size >= self.shard_bytes:
            self._seal()

    def finish(self) -> str:
        """Writes the last shard and returns the digest of all the data.

        Videos whose blobs are not those that were stored are left out of the shard, and told in
        `lost`.

        Raises:
            VidsslError: the disk is full; another writer can continue.
        """
        if self._spool.entries:
            self._seal()
        self._spool.remove()
        return data_digest(self.digests.items())

    def close(self) -> None:
        """Closes the files; the spool stays for the next writer."""
        self._spool.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _recover(self) -> Spool:
        """Continues the folder of an earlier writer, wherever that one was stopped."""
        for aside in self.folder.glob("shard-*.h5.tmp"):
            aside.unlink()
        for path in shard_files(self.folder):
            self.digests |= shard_videos(path, self.views)
            for spent in spool_files(self.folder, shard_number(path)):  # killed before deleting
                spent.unlink(missing_ok=True)
        return self._open_spool(_number_of_spool(self.folder))

    def _open_spool(self, number: int) -> Spool:
        with system_errors_name(self.folder):
            spool = Spool(self.folder, number, self.views)
        if spool.damaged:
            _, journal = spool_files(self.folder, number)
            self.lost.append(
                f"{journal} is damaged: {counted(spool.damaged, 'video')} of it "
                f"{agree(spool.damaged, 'is', 'are')} made again"
            )
        self.digests |= _digests_of(spool.entries)
        return spool

    def _seal(self) -> None:
        """Turns the spool into a shard: writes under a temporary name, fsyncs, renames."""
        target = self.folder / shard_name(self._spool.number)
        aside = target.with_name(target.name + ".tmp")
        try:
            with system_errors_name(self.folder):
                while damaged := _write_shard(aside, self._spool):
                    self._leave_out(damaged)
                if self._note_digests and self._spool.entries:  # before it has its name
                    note_digests(self.folder, {target.name: file_digest(aside)})
            if written := bool(self._spool.entries):
                os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        fsync_folder(self.folder)
        self._spool.remove()
        self._spool = self._open_spool(self._spool.number + written)

    def _leave_out(self, damaged: list[SpooledVideo]) -> None:
        """Takes videos out of the spool whose blobs are not those that were stored."""
        names = ", ".join(entry.video.path for entry in damaged[:3])
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        self.lost.append(
            f"{self._spool.blobs_path} is damaged: {names}{more} "
            f"{agree(len(damaged), 'is', 'are')} made again"
        )
        for entry in damaged:
            self._spool.entries.remove(entry)
            del self.digests[entry.video.id]
            self.lost_videos.add(entry.video.id)


def _number_of_spool(folder: Path) -> int:
    """Returns the number of a folder's spool, where there is one or where one is to be begun.

    It is above those of all shards: one may be missing, but none comes twice.
    """
    spools = [int(p.stem.removeprefix("spool-")) for p in folder.glob("spool-*.journal")]
    return max([0, *spools, *(shard_number(path) + 1 for path in shard_files(folder))])


def finished_videos(folder: Path, views: Mapping[str, Params]) -> dict[str, str]:
    """Returns {id: digest} of the videos that a writer finished in `folder`; changes nothing.

    Raises:
        VidsslError: the folder holds videos with other parameters.
        DamagedShard: a shard cannot be read.
    """
    views = json.loads(json.dumps(views))
    found: dict[str, str] = {}
    for path in shard_files(folder):
        found |= shard_videos(path, views)
    number = _number_of_spool(folder)
    if all(path.exists() for path in spool_files(folder, number)):
        found |= _digests_of([entry for _, entry in read_journal(folder, number, views).lines])
    return found


def shard_videos(path: Path, views: Mapping[str, Params]) -> dict[str, str]:
    """Returns {id: digest} of the videos in one shard, as its table says.

    Raises:
        VidsslError: it is no shard, of an unknown version, or of other parameters.
        DamagedShard: it cannot be read.
    """
    shard = ShardTables.load(path)
    check_same_views(path, shard.views, views)
    pairs = zip(shard.columns["id"], shard.columns["digest"], strict=True)
    return {video.decode(): mark.decode() for video, mark in pairs}


def _digests_of(entries: Sequence[SpooledVideo]) -> dict[str, str]:
    return {entry.video.id: entry.digest for entry in entries}


def _write_shard(path: Path, spool: Spool) -> list[SpooledVideo]:
    """Writes one HDF5 file and makes sure that it is on the disk; nothing for an empty spool.

    Returns:
        The videos whose blobs are not those that were stored; the file is of use if there is none.

    Disk space is reserved first, because HDF5 cannot handle a full disk: it prints, keeps the file
    open and may crash the process at its end. HDF5 then writes the tables and allocates the blobs,
    which are copied into the file without HDF5.
    """
    if not spool.entries:
        return []
    path.unlink(missing_ok=True)  # whatever lies there is not written through
    with path.open("xb") as target:
        target.write(_empty_file())
        target.flush()
        if hasattr(os, "posix_fallocate"):  # macOS lacks it
            blobs = sum(entry.size for entry in spool.entries)
            os.posix_fallocate(target.fileno(), 0, blobs + _most_bytes_of_tables(spool))
    with h5py.File(path, "r+") as file:
        file.attrs["kind"] = SHARD_KIND
        file.attrs["format_version"] = SHARD_FORMAT
        file.attrs["vidssl_version"] = VERSION
        _write_videos(file.create_group("videos"), spool.entries)
        places = {
            view: _write_view(file.create_group(f"views/{view}"), view, params, spool.entries)
            for view, params in spool.views.items()
        }
    damaged = _copy_blobs(path, spool, places)
    if not damaged:
        with path.open("rb") as target:
            os.fsync(target.fileno())
    return damaged


def _copy_blobs(path: Path, spool: Spool, places: Mapping[str, int]) -> list[SpooledVideo]:
    """Copies the blobs of a spool into a shard, and compares them with checksums and digests.

    Args:
        places: of each view's blobs in the shard.

    Returns:
        The videos whose blobs are not those that were stored.
    """
    damaged = []
    place = dict(places)
    with path.open("r+b") as target, spool.blobs_path.open("rb") as source:
        for entry in spool.entries:
            source.seek(entry.start)
            blobs = entry.blobs(source.read(entry.size), spool.views)
            if blobs is None:
                damaged.append(entry)
                continue
            for view in spool.views:
                target.seek(place[view])
                place[view] += target.write(b"".join(blobs[view]))
    return damaged


def _empty_file() -> bytes:
    image = io.BytesIO()
    h5py.File(image, "w").close()
    return image.getvalue()


def _most_bytes_of_tables(spool: Spool) -> int:
    """Returns more bytes than HDF5 needs for all but the blobs; the rest is cut off at the end."""
    videos = [vars(entry.video) for entry in spool.entries]
    texts = [max(len(v[column].encode()) for v in videos) for column in ("id", "path", "note")]
    per_video = sum(texts) + 1 + 64 + 4 * 8 + 8 * len(spool.views)
    frames = sum(len(entry.lengths[view]) for entry in spool.entries for view in spool.views)
    fixed = 64 * 1024 + len(json.dumps(spool.views))
    return per_video * len(videos) + 12 * frames + fixed


def _write_videos(group: h5py.Group, entries: Sequence[SpooledVideo]) -> None:
    videos = [vars(entry.video) for entry in entries]
    for column in ("id", "path", "note"):
        group[column] = _strings([video[column] for video in videos])
    group["digest"] = _strings([entry.digest for entry in entries])
    group["fps"] = np.array([video["fps"] for video in videos], "<f8")
    for column in ("frames", "width", "height"):
        group[column] = np.array([video[column] for video in videos], "<i8")


def _strings(texts: list[str]) -> np.ndarray:
    """Returns fixed-length UTF-8: a table of 240,000 loads as one block, without Python objects."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def _write_view(
    group: h5py.Group, view: str, params: Params, entries: Sequence[SpooledVideo]
) -> int:
    """Writes a view's tables, allocates its blobs, and returns their place in the file."""
    lengths = np.concatenate([np.array(entry.lengths[view], "<i8") for entry in entries])
    counts = [len(entry.lengths[view]) for entry in entries]
    group.attrs["params"] = json.dumps(params, sort_keys=True)
    group["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
    group["crc32"] = np.concatenate([np.array(entry.crc32[view], "<u4") for entry in entries])
    group["first_frame"] = np.concatenate([[0], np.cumsum(counts)]).astype("<i8")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    room = h5py.h5s.create_simple((int(lengths.sum()),))
    blobs = h5py.h5d.create(group.id, b"blobs", h5py.h5t.STD_U8LE, room, dcpl=layout)
    return blobs.get_offset() or 0  # None when there is no byte to store
