"""The spool: collects finished videos for a shard, and survives a kill at any moment.

A contiguous HDF5 dataset cannot grow, so videos are first collected in two files:

    spool-0000.bin       blobs, end to end
    spool-0000.journal   a header, then one JSON line per finished video

Blobs are written and fsynced before their line. So where a line is complete, its blobs are on the
disk. Recovery cuts both files after the last complete line whose blobs are there.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import fsync_folder
from vidssl.shards.format import SHARD_FORMAT, Params, VideoRecord, video_digest

Entry = dict[str, Any]


class Spool:
    """The spool of one future shard; opening it continues what an earlier process left.

    Attributes:
        entries: one per video: video, digest, start, lengths and crc32 per view.
        size: bytes of blobs.

    Raises:
        VidsslError: it was begun with other parameters.
        OSError: the disk is full, or another error of the file system.
    """

    def __init__(self, folder: Path, number: int, views: Mapping[str, Params]) -> None:
        self.number = number
        self.views = views
        self.blobs_path, self._journal_path = spool_files(folder, number)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._blobs = os.open(self.blobs_path, flags, 0o666)
        self._journal = os.open(self._journal_path, flags, 0o666)
        self.entries, journal_end = read_journal(folder, number, views)
        self.size = _end(self.entries[-1]) if self.entries else 0
        os.ftruncate(self._journal, journal_end)
        os.ftruncate(self._blobs, self.size)
        if not journal_end:
            _write_all(self._journal, _head(views))
        fsync_folder(folder)

    def add(self, video: VideoRecord, blobs: Mapping[str, Sequence[bytes]]) -> Entry:
        """Stores one video; when this returns it survives a power cut.

        Raises:
            OSError: it could not be written; the files are as before.
        """
        entry: Entry = {
            "video": vars(video),
            "digest": video_digest(blobs, self.views),
            "start": self.size,
            "lengths": {view: [len(blob) for blob in blobs[view]] for view in self.views},
            "crc32": {view: [zlib.crc32(blob) for blob in blobs[view]] for view in self.views},
        }
        line_start = os.fstat(self._journal).st_size
        try:
            _write_all(self._blobs, b"".join(blob for view in self.views for blob in blobs[view]))
            os.fsync(self._blobs)
            _write_all(self._journal, json.dumps(entry).encode() + b"\n")
            os.fsync(self._journal)
        except BaseException:  # also Ctrl-C: the next line must not begin in the middle of this one
            os.ftruncate(self._journal, line_start)
            os.ftruncate(self._blobs, self.size)
            raise
        self.entries.append(entry)
        self.size = _end(entry)
        return entry

    def close(self) -> None:
        """Closes the files, which stay for the next process."""
        for descriptor in (self._blobs, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._blobs = self._journal = -1

    def remove(self) -> None:
        """Closes and deletes the files."""
        self.close()
        self.blobs_path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)


def read_journal(folder: Path, number: int, views: Mapping[str, Params]) -> tuple[list[Entry], int]:
    """Returns the entries of a spool whose blobs are complete, and where the last line ends.

    Raises:
        VidsslError: it was begun with other parameters.
    """
    blobs_path, journal_path = spool_files(folder, number)
    spooled = blobs_path.stat().st_size
    lines = journal_path.read_bytes().splitlines(keepends=True)
    if not lines or not lines[0].endswith(b"\n"):
        return [], 0
    if lines[0] != _head(views):
        raise VidsslError(f"{journal_path} was begun with other parameters: move its folder away")
    entries: list[Entry] = []
    end = len(lines[0])
    for line in lines[1:]:
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
        except ValueError:  # a power cut can leave zeros where a line was
            break
        if _end(entry) > spooled:
            break
        entries.append(entry)
        end += len(line)
    return entries, end


def _head(views: Mapping[str, Params]) -> bytes:
    return json.dumps({"journal": SHARD_FORMAT, "views": views}).encode() + b"\n"


def spool_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Returns the paths of a spool's blobs and journal."""
    stem = f"spool-{number:04d}"
    return folder / f"{stem}.bin", folder / f"{stem}.journal"


def view_bytes(entry: Entry, view: str) -> int:
    """Returns the size of one view of a spooled video."""
    return sum(entry["lengths"][view])


def _end(entry: Entry) -> int:
    return int(entry["start"]) + sum(view_bytes(entry, view) for view in entry["lengths"])


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
