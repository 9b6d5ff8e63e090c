"""The spool: collects finished videos for a shard, and survives a kill at any moment.

A contiguous HDF5 dataset cannot grow, so videos are first collected in two files:

    spool-0000.bin       blobs, end to end
    spool-0000.journal   a header, then one JSON line per finished video

Blobs are written and fsynced before their line. So where a line is complete, its blobs are on the
disk. A line that is not as it was written, or has no blobs, is left out when the spool is opened
again; blobs are compared with the line's checksums when they are copied into a shard.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write, fsync_folder, open_to_append, read_regular
from vidssl.base.stored_json import DamagedFile, bounded, parse_json, record
from vidssl.shards.format import SHARD_FORMAT, Params, VideoRecord, video_digest

CHECKSUM = "checksum"  # of a line; those of version 0.1 have none


@dataclass(frozen=True)
class SpooledVideo:
    """A video in the spool: one line of the journal.

    Attributes:
        video: its row in the shard's table.
        digest: :func:`vidssl.shards.video_digest`.
        start: place of its first blob in the spool.
        lengths, crc32: of each blob, by view.
    """

    video: VideoRecord
    digest: str
    start: int = field(metadata=bounded(at_least=0))
    lengths: dict[str, list[int]]
    crc32: dict[str, list[int]]

    @property
    def size(self) -> int:
        """Bytes of its blobs."""
        return sum(sum(lengths) for lengths in self.lengths.values())

    @property
    def end(self) -> int:
        """Place after its last blob."""
        return self.start + self.size

    def blobs(self, data: bytes, views: Mapping[str, Params]) -> dict[str, list[bytes]] | None:
        """Cuts the bytes of this video into blobs; None if they are not those that were stored."""
        found: dict[str, list[bytes]] = {}
        place = 0
        for view in views:
            found[view] = []
            for length in self.lengths[view]:
                found[view].append(data[place : place + length])
                place += length
            if [zlib.crc32(blob) for blob in found[view]] != self.crc32[view]:
                return None
        return found if video_digest(found, views) == self.digest else None


@dataclass(frozen=True)
class Journal:
    """What a journal holds.

    Attributes:
        lines: the sound lines as they are stored, in their order, and their videos.
        damaged: how many lines are not as they were written, or have no blobs.
        size: bytes from its beginning to the end of its sound lines; -1 where these are not in a
            row, and it must be written anew.
    """

    lines: list[tuple[bytes, SpooledVideo]]
    damaged: int
    size: int


class Spool:
    """The spool of one future shard; opening it continues what an earlier process left.

    Attributes:
        entries: the videos in it.
        size: bytes of blobs.
        damaged: how many videos of an earlier process were lost, since their lines are damaged.

    Raises:
        VidsslError: it was begun with other parameters.
        OSError: the disk is full, or another error of the file system.
    """

    def __init__(self, folder: Path, number: int, views: Mapping[str, Params]) -> None:
        self.number = number
        self.views = views
        self.blobs_path, self._journal_path = spool_files(folder, number)
        self._blobs = open_to_append(self.blobs_path)
        journal = _read_or_begin(folder, number, views)
        self._journal = open_to_append(self._journal_path)
        self.entries = [entry for _, entry in journal.lines]
        self.damaged = journal.damaged
        self.size = max((entry.end for entry in self.entries), default=0)
        os.ftruncate(self._journal, journal.size)
        os.ftruncate(self._blobs, self.size)
        fsync_folder(folder)

    def add(self, video: VideoRecord, blobs: Mapping[str, Sequence[bytes]]) -> SpooledVideo:
        """Stores one video; when this returns it survives a power cut.

        Raises:
            OSError: it could not be written; the files are as before.
        """
        entry = SpooledVideo(
            video,
            video_digest(blobs, self.views),
            self.size,
            {view: [len(blob) for blob in blobs[view]] for view in self.views},
            {view: [zlib.crc32(blob) for blob in blobs[view]] for view in self.views},
        )
        line_start = os.fstat(self._journal).st_size
        try:
            _write_all(self._blobs, b"".join(blob for view in self.views for blob in blobs[view]))
            os.fsync(self._blobs)
            _write_all(self._journal, _line(vars(entry) | {"video": vars(video)}))
            os.fsync(self._journal)
        except BaseException:  # also Ctrl-C: the next line must not begin in the middle of this one
            os.ftruncate(self._journal, line_start)
            os.ftruncate(self._blobs, self.size)
            raise
        self.entries.append(entry)
        self.size = entry.end
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


def spool_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Returns the paths of a spool's blobs and journal."""
    stem = f"spool-{number:04d}"
    return folder / f"{stem}.bin", folder / f"{stem}.journal"


# ── the journal ──────────────────────────────────────────────────────────────────────────────


def read_journal(folder: Path, number: int, views: Mapping[str, Params]) -> Journal:
    """Reads the journal of a spool; changes nothing.

    Raises:
        VidsslError: it was begun with other parameters.
    """
    blobs_path, journal_path = spool_files(folder, number)
    spooled = blobs_path.stat().st_size
    *lines, rest = read_regular(journal_path).split(b"\n")  # the rest was never finished
    if not lines:
        return Journal([], int(bool(rest) and spooled > 0), -1)
    head, lines = lines[0] + b"\n", [line + b"\n" for line in lines[1:]]
    header_is_sound = _check_head(head, views, journal_path)
    found: list[tuple[bytes, SpooledVideo]] = []
    ids: set[str] = set()
    damaged = 0
    for line in lines:
        entry = _entry(line, views)
        if entry is None or entry.end > spooled:
            damaged += 1
        elif entry.video.id not in ids:
            ids.add(entry.video.id)
            found.append((line, entry))
    sound = [line for line, _ in found]
    in_a_row = header_is_sound and sound == lines[: len(sound)]
    return Journal(found, damaged, len(head) + sum(map(len, sound)) if in_a_row else -1)


def _read_or_begin(folder: Path, number: int, views: Mapping[str, Params]) -> Journal:
    """Reads the journal of a spool; writes it anew where it does not begin with sound lines."""
    _, journal_path = spool_files(folder, number)
    if not journal_path.exists():
        atomic_write(journal_path, _head(views))
    journal = read_journal(folder, number, views)
    if journal.size > 0:
        return journal
    whole = _head(views) + b"".join(line for line, _ in journal.lines)
    atomic_write(journal_path, whole)
    return Journal(journal.lines, journal.damaged, len(whole))


def _entry(line: bytes, views: Mapping[str, Params]) -> SpooledVideo | None:
    """Returns the video of a line; None if the line is not as it was written."""
    try:
        value = parse_json(line.decode("utf-8"), "a line")
        if not isinstance(value, dict):
            return None
        written = value.pop(CHECKSUM, None)
        if written is not None and written != _checksum(value):
            return None
        entry = record(SpooledVideo, value, "a line")
    except (DamagedFile, UnicodeDecodeError):
        return None
    shapes = [{v: len(of[v]) for v in of} for of in (entry.lengths, entry.crc32)]
    fits = shapes[0] == shapes[1] and shapes[0].keys() == views.keys()
    positive = all(length >= 0 for lengths in entry.lengths.values() for length in lengths)
    return entry if fits and positive else None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps({**value, CHECKSUM: _checksum(value)}).encode() + b"\n"


def _checksum(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _head(views: Mapping[str, Params]) -> bytes:
    return json.dumps({"journal": SHARD_FORMAT, "views": views}).encode() + b"\n"


def _check_head(head: bytes, views: Mapping[str, Params], path: Path) -> bool:
    """Whether a journal's first line is the one that was written, or it is damaged.

    Each video's digest covers the parameters, so its line can be used without the first one.

    Raises:
        VidsslError: it has other parameters.
    """
    if head == _head(views):
        return True
    try:
        found = parse_json(head.decode("utf-8"), path)
    except (DamagedFile, UnicodeDecodeError):
        return False
    if isinstance(found, dict) and found.keys() == {"journal", "views"}:
        raise VidsslError(f"{path} was begun with other parameters: move its folder away")
    return False


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
