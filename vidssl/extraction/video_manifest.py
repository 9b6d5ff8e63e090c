"""A manifest of a folder of video: fingerprints and lengths, shared by the parts of a run.

Computing a fingerprint reads three blocks of a file, and finding out its length opens it. For
Kinetics that is 46 GB and some minutes: too much for each of a hundred processes. So the first
process writes the manifest, and the others only check that each file's size and time are the same:

    WORKSPACE/.manifests/XXXXXXXXXXXXXXXX.csv     path,bytes,mtime_ns,fingerprint,seconds

It is a cache: it may be deleted at any time, and nothing in an artifact depends on it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.locks import file_lock
from vidssl.base.progress import Progress
from vidssl.base.stored_json import read_bytes
from vidssl.dataset.video import LARGEST_LIST, fingerprint, map_files
from vidssl.extraction.video_lengths import video_lengths
from vidssl.workspace.artifacts import canonical_digest
from vidssl.workspace.workspace import Workspace

COLUMNS = ("path", "bytes", "mtime_ns", "fingerprint", "seconds")


@dataclass(frozen=True)
class VideoFile:
    """What is known of one file, as long as its size and time stay the same.

    Attributes:
        bytes: its size.
        mtime_ns: when it was changed last, in nanoseconds since 1970.
        fingerprint: see :func:`vidssl.dataset.video.fingerprint`.
        seconds: how long the video is; 0 if that is unknown.
    """

    bytes: int
    mtime_ns: int
    fingerprint: str
    seconds: float


Rows = dict[str, VideoFile]  # by the file's absolute path


def describe_files(
    workspace: Workspace | None, videos: Path, files: Sequence[Path], progress: Progress
) -> dict[Path, VideoFile]:
    """Returns what is known of each file; reads only files that are new or have changed.

    Args:
        workspace: keeps the manifest; None: no manifest is read or written.
        videos: the path that the user gave; each has a manifest of its own.
        files: the videos found there.

    Raises:
        VidsslError: a file cannot be read.
    """
    if workspace is None:
        rows = _complete({}, files, progress)
    else:
        rows = _shared_rows(workspace, videos, files, progress)
    return {file: rows[_absolute(file)] for file in files}


def _absolute(file: Path) -> str:
    return os.path.abspath(file)


def _shared_rows(
    workspace: Workspace, videos: Path, files: Sequence[Path], progress: Progress
) -> Rows:
    """Reads the manifest, and rewrites it if files are new or have changed."""
    folder = workspace.root / ".manifests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{canonical_digest(_absolute(videos))[:16]}.csv"
    wait = partial(progress.say, "another process is making the manifest of these videos: waiting")
    with file_lock(path.with_suffix(".lock"), before_waiting=wait):
        known = _read(path)
        rows = _complete(known, files, progress)
        if rows != known:
            _write(path, rows)
    return rows


def _complete(known: Rows, files: Sequence[Path], progress: Progress) -> Rows:
    """Returns the rows of all files; reads those that are not known or have changed."""
    rows: dict[str, VideoFile | None] = {}
    for file, now in zip(files, map_files(_size_and_time, files), strict=True):
        row = known.get(_absolute(file))
        rows[_absolute(file)] = row if row and (row.bytes, row.mtime_ns) == now else None
    new = [file for file in files if rows[_absolute(file)] is None]
    if new:
        with progress.task("manifest", len(new), "video") as task:
            marks = list(map_files(_size_time_and_fingerprint, new))
            lengths = video_lengths(new, task.advance)
            for file, mark, seconds in zip(new, marks, lengths, strict=True):
                # Rounded, so that the manifest holds the exact value.
                rows[_absolute(file)] = VideoFile(*mark, round(seconds, 3))
    return {file: row for file, row in rows.items() if row is not None}


def _size_time_and_fingerprint(file: Path) -> tuple[int, int, str]:
    return *_size_and_time(file), fingerprint(file)


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        found = file.stat() if file.exists() else file.lstat()  # a broken link is told later
    except OSError as error:
        raise VidsslError(f"{file} cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns


def _read(path: Path) -> Rows:
    """Returns the rows of a manifest; none if there is no such file or it is damaged."""
    try:
        lines = _lines_of(path)
        if tuple(lines[0]) != COLUMNS:
            return {}
        return {
            file: VideoFile(int(size), int(time), mark, float(seconds))
            for file, size, time, mark, seconds in lines[1:]
        }
    except (OSError, VidsslError, ValueError, IndexError, csv.Error):
        return {}


def _lines_of(path: Path) -> list[list[str]]:
    text = read_bytes(path, LARGEST_LIST).decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text)))


def _write(path: Path, rows: Rows) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for file, row in rows.items():
        table.writerow((file, row.bytes, row.mtime_ns, row.fingerprint, row.seconds))
    atomic_write(path, text.getvalue().encode("utf-8", "surrogateescape"))
