"""Finds and names video files; only the commands that read video use it."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from vidssl.base.errors import VidsslError
from vidssl.base.files import SENTENCES, NotRegular, open_regular, system_sentence
from vidssl.base.stored_json import read_bytes

_SUFFIXES = (
    ".3gp .asf .avi .divx .f4v .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob "
    ".webm .wmv .y4m"
)
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())
LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
# Of whole disks, and what systems and network drives keep deleted or small files in.
SYSTEM_FOLDERS = frozenset(
    [
        "lost+found",
        "system volume information",
        "$recycle.bin",
        "recycler",
        "recycled",
        "#recycle",
        "@recycle",
        "@eadir",
        "__macosx",
        "found.000",
    ]
)
TS_PACKET, TS_SYNC = 188, 0x47  # bytes of a packet of MPEG-TS, and its first one
TS_PREFIX = 4  # bytes before each packet in .m2ts, which may be named .ts
TS_SEEN = 64 * 1024  # bytes in which a captured stream must show its first packets
FINGERPRINT_BLOCK = 64 * 1024
NO_FILE = "0" * 12  # fingerprint of what cannot be opened
LARGEST_LIST = 1 << 30  # bytes of a list of paths
DEEPEST_FOLDERS = 500  # below a folder of videos

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One video file.

    Attributes:
        id: `name` + "#" + `fingerprint`; the same on every machine that has the same folder.
        path: of the file on this machine.
        name: POSIX path relative to the root.
        fingerprint: 12 hex digits of the file's size and of its first, middle and last 64 KiB.
    """

    id: str
    path: Path
    name: str
    fingerprint: str


def find_videos(path: Path | str) -> list[Source]:
    """Returns the videos of a folder (at any depth), of one file, or of a text file of paths.

    Files of other names are skipped silently. What has a video's name and is no regular file (a
    pipe, a device, a broken link) is among the results, so that it is told as left out; so is a
    broken link that may have led to a folder of videos. Folders of deleted files are skipped. A
    list has one path per line, in UTF-8, relative to the list's folder or to the current one; empty
    lines are skipped, and lines that begin with #, unless there is such a file. The result is
    sorted by name.

    Raises:
        VidsslError: there is no such path or no video in it, a list names files that are missing,
            or a file or folder cannot be read.
    """
    root, files = locate_videos(path)
    return name_videos(root, files, list(map_files(fingerprint, files)))


def locate_videos(path: Path | str) -> tuple[Path, list[Path]]:
    """Returns the root and the files of :func:`find_videos`, without reading them.

    Raises:
        As :func:`find_videos`.
    """
    path = Path(path)
    if path.is_dir():
        root, files = path, list(_walk(path))
        if not files:
            raise VidsslError(f"there is no video in {path}")
    elif not path.exists():
        raise VidsslError(f"there is no such folder or file: {path}")
    elif path.suffix.lower() in LIST_SUFFIXES:
        files = _read_list(path)
        root = _root_of_list(path, files)
    else:
        if not _is_video(path):
            raise VidsslError(
                f"{path} is no video: name a folder, a video file, "
                "or a text file (.txt) with one path per line"
            )
        root, files = path.parent, [path]
    return root, files


def name_videos(root: Path, files: Sequence[Path], fingerprints: Sequence[str]) -> list[Source]:
    """Returns the sources of located files, sorted by name."""
    names = [_name(file, root) for file in files]
    sources = [
        Source(f"{name}#{mark}", file, name, mark)
        for file, name, mark in zip(files, names, fingerprints, strict=True)
    ]
    return sorted(sources, key=lambda source: source.name)


def map_files(read: Callable[[Path], T], files: Sequence[Path]) -> Iterator[T]:
    """Yields `read(file)` for each file, several at once: network disks are slow."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(read, files)


def fingerprint(path: Path) -> str:
    """Returns 12 hex digits that distinguish a file from others of the same name.

    They depend on the file's size and its first, middle and last 64 KiB only: reading all of
    Kinetics just to name its files would take as long as decoding it.

    A pipe, a device or a broken link is not opened: it gets twelve zeros, and is left out later.

    Raises:
        VidsslError: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(str(size).encode(), digest_size=6)
            for start in (0, size // 2, max(0, size - FINGERPRINT_BLOCK)):
                file.seek(start)
                digest.update(file.read(FINGERPRINT_BLOCK))
    except (FileNotFoundError, NotRegular):
        return NO_FILE
    except OSError as error:
        raise VidsslError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    """Yields a folder's videos, and whatever else has a video's name: it is told as left out."""
    seen = set()
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        if folder.count(os.sep) - str(root).count(os.sep) > DEEPEST_FOLDERS:
            raise VidsslError(
                f"{root} has folders more than {DEEPEST_FOLDERS} deep, from "
                f"{folder[len(str(root)) :]:.40}… on: name one further down, or list the videos in "
                "a text file"
            )
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and (_is_video(path) or _is_lost(path)):
                yield path


def _refuse(error: OSError) -> None:
    """Raises for a folder that cannot be read; else its videos would be missing silently."""
    if not _is_hidden(Path(error.filename).name):
        known = system_sentence(error) if error.errno in SENTENCES else None
        raise VidsslError(known or f"{error.filename} cannot be read: {error.strerror}") from error


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".ts":  # TypeScript shares the suffix of MPEG transport streams
        return _is_transport_stream(path)
    return suffix in VIDEO_SUFFIXES


def _is_transport_stream(path: Path) -> bool:
    """Returns whether a .ts file is empty, or has MPEG-TS packets near its start.

    A recording may begin in the midst of a packet. Text has no five bytes 0x47 (a G) at the
    distance of packets.
    """
    try:
        with open_regular(path) as file:
            head = file.read(TS_SEEN)
    except FileNotFoundError:
        return path.is_symlink()
    except NotRegular:
        return False
    if head and b"\0" not in head:  # text of any kind
        return False
    return not head or any(_has_packets(head, step) for step in (TS_PACKET, TS_PACKET + TS_PREFIX))


def _has_packets(head: bytes, step: int) -> bool:
    """Returns whether bytes hold five packets in a row, or nothing but packets if they are few."""
    few = len(head) <= 5 * step
    for first in range(1 if few else min(len(head) - 4 * step, TS_SEEN)):
        begins = head[first : first + 5 * step : step]
        if begins.count(TS_SYNC) == len(begins):
            return True
    return False


def _is_hidden(folder: str) -> bool:
    """Returns whether a folder is the system's: hidden, or for what was deleted."""
    return folder.startswith(".") or folder.lower() in SYSTEM_FOLDERS


def _is_lost(path: Path) -> bool:
    """Returns whether a link leads nowhere and may have been a folder of videos.

    Such a link, to a disk that is not there, has no suffix of a file of another kind.
    """
    if not path.is_symlink() or path.exists():
        return False
    return mimetypes.guess_type(path.name)[0] is None


def _read_list(path: Path) -> list[Path]:
    try:
        lines = re.split(r"\r\n|\r|\n", read_bytes(path, LARGEST_LIST).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise VidsslError(f"{path} is no list of videos: it is not text") from None
    files: dict[Path, None] = {}  # a set that keeps its order
    missing = []
    entries = 0
    for line in lines:
        entry = line.strip()
        # A file that exists goes before all syntax: names may begin with # or end with a blank.
        found = _listed(path, entry) or _listed(path, line) if entry else None
        if found is not None:
            files[found] = None
        elif entry and not entry.startswith("#"):
            missing.append(entry)
        else:
            continue
        entries += 1
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise VidsslError(
            f"{path} names files that do not exist, {len(missing)} of {entries}: "
            f"{', '.join(f'{entry:.200}' for entry in missing[:3])}{more}"
        )
    if not files:
        raise VidsslError(f"there is no video in the list {path}")
    return list(files)


def _listed(path: Path, entry: str) -> Path | None:
    """Returns the file that a line of the list `path` names; None if there is none."""
    if "\0" in entry:
        return None
    # A list is UTF-8; names of files are bytes, whatever letters the locale has.
    name = os.fsdecode(entry.encode())
    for place in (path.parent / name, Path(name)):
        with suppress(OSError):  # such as a line too long for a name
            if not place.is_dir():
                place.stat()
                return Path(os.path.abspath(place))
    return None


def _root_of_list(path: Path, files: list[Path]) -> Path:
    """Returns the list's folder, the current one, or the common one: the first that fits."""
    for root in (path.parent.absolute(), Path.cwd()):
        if all(file.is_relative_to(root) for file in files):
            return root
    return Path(os.path.commonpath([file.parent for file in files]))


def _name(file: Path, root: Path) -> str:
    name = PurePosixPath(os.path.relpath(file, root)).as_posix()
    # File names are bytes. Those that are not UTF-8 must still fit into JSON and HDF5, and those
    # with line breaks must fit into one line.
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", name)


def sorted_ids(sources: Iterable[Source]) -> list[str]:
    """Returns the sorted ids, which a run's recipe records; the same on every machine."""
    return sorted(source.id for source in sources)
