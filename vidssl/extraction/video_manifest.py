"""One manifest of a folder of video, shared by all processes that divide the work on it.

Naming a video reads three blocks of it, and telling how long it is opens it. For Kinetics that is
46 GB and some minutes: too much for each of a hundred processes. So the first one writes down what
it found, and the others only look whether the files are still of that size and time:

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
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.locks import file_lock
from vidssl.base.progress import SILENT, Progress
from vidssl.base.text import counted
from vidssl.dataset.video import (
    Source,
    duration,
    find_videos,
    fingerprint,
    locate_videos,
    map_files,
    name_videos,
)
from vidssl.extraction.partition import Part, divide
from vidssl.workspace.artifacts import canonical_digest
from vidssl.workspace.workspace import Workspace

COLUMNS = ("path", "bytes", "mtime_ns", "fingerprint", "seconds")


@dataclass(frozen=True)
class Share:
    """What falls to one part.

    Attributes:
        part: which one.
        ids: its videos.
        seconds: how long they are together.
    """

    part: Part
    ids: frozenset[str]
    seconds: float


@dataclass(frozen=True)
class _Row:
    """What is known of one file, for as long as it keeps its size and time."""

    bytes: int
    mtime_ns: int
    fingerprint: str
    seconds: float


def find_share(
    workspace: Workspace,
    videos: Path,
    part: Part | None,
    progress: Progress = SILENT,
    dry_run: bool = False,
) -> tuple[list[Source], Share | None]:
    """Returns all the videos, sorted by name, and which of them fall to a part.

    Args:
        videos: a folder, a file, or a list (see :func:`vidssl.dataset.video.find_videos`).
        part: None: all videos fall to this process, and there is no share.
        dry_run: leaves the manifest unwritten.

    Raises:
        VidsslError: there is no video, or a list names files that are missing.
    """
    if part is None:
        return find_videos(videos), None
    root, files = locate_videos(videos)
    if dry_run:
        rows = _look(files, {}, progress)
    else:
        rows = _shared_rows(workspace, videos, files, progress)
    sources = name_videos(root, files, [rows[_place(file)].fingerprint for file in files])
    seconds = [rows[_place(source.path)].seconds for source in sources]
    mine = [i for i, owner in enumerate(divide(seconds, part.count)) if owner == part.index]
    share = Share(part, frozenset(sources[i].id for i in mine), sum(seconds[i] for i in mine))
    progress.say(_announce(share, len(sources), sum(seconds)))
    return sources, share


def share_plan(share: Share | None) -> dict[str, Any]:
    """Returns what a dry run says of a part; nothing where there is none."""
    if share is None:
        return {}
    return {"part": str(share.part), "videos_of_part": len(share.ids)}


def _announce(share: Share, videos: int, seconds: float) -> str:
    """Says how much falls to a part, and how to do without parts that nobody asked for."""
    part = share.part
    by = "" if part.by == "--shard" else f" by {part.by} (--shard 0/1 does all of it here)"
    minutes, all_minutes = (f"{s / 60:.3g}" for s in (share.seconds, seconds))
    count = f"{len(share.ids)} of {counted(videos, 'video')}"
    return f"part {part}{by}: {count}, {minutes} of {all_minutes} minutes"


Rows = dict[str, _Row]  # by the file's place on this machine


def _place(file: Path) -> str:
    return os.path.abspath(file)


def _shared_rows(
    workspace: Workspace, videos: Path, files: Sequence[Path], progress: Progress
) -> Rows:
    """Reads the manifest, and writes it anew where files are new or have changed."""
    folder = workspace.root / ".manifests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{canonical_digest(_place(videos))[:16]}.csv"
    wait = partial(progress.say, "another process is making the manifest of these videos: waiting")
    with file_lock(path.with_suffix(".lock"), before_waiting=wait):
        known = _read(path)
        rows = _look(files, known, progress)
        if rows != known:
            _write(path, rows)
    return rows


def _look(files: Sequence[Path], known: Rows, progress: Progress) -> Rows:
    """Returns the rows of all files; only those that are not known as they are now are read."""
    rows: dict[str, _Row | None] = {}
    for file, now in zip(files, map_files(_size_and_time, files), strict=True):
        row = known.get(_place(file))
        rows[_place(file)] = row if row and (row.bytes, row.mtime_ns) == now else None
    new = [file for file in files if rows[_place(file)] is None]
    if new:
        with progress.task("manifest", len(new), "video") as task:
            for file, row in zip(new, map_files(_make_row, new), strict=True):
                rows[_place(file)] = row
                task.advance()
    return {place: row for place, row in rows.items() if row is not None}


def _make_row(file: Path) -> _Row:
    size, time = _size_and_time(file)
    # To the millisecond, so that what is written is what is read.
    return _Row(size, time, fingerprint(file), round(duration(file), 3))


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise VidsslError(f"{file} cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns


def _read(path: Path) -> Rows:
    """Returns the rows of a manifest, none where there is none or it cannot be read as one."""
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"))))
        if tuple(lines[0]) != COLUMNS:
            return {}
        return {
            place: _Row(int(size), int(time), mark, float(seconds))
            for place, size, time, mark, seconds in lines[1:]
        }
    except (OSError, ValueError, IndexError):
        return {}


def _write(path: Path, rows: Rows) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for place, row in rows.items():
        table.writerow((place, row.bytes, row.mtime_ns, row.fingerprint, row.seconds))
    atomic_write(path, text.getvalue().encode("utf-8", "surrogateescape"))
