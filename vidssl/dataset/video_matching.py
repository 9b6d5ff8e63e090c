"""Finds the video that a row of a table names, by its path; never by a part of its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vidssl.dataset.video import VIDEO_SUFFIXES, Source

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """What a row's path names.

    Attributes:
        video: its position among the videos; None if it names none, or several.
        several: whether it could be any of several videos.
        folders_differ: whether only the file's name is the same: the row names a folder, and the
            video lies directly in the root.
    """

    video: int | None = None
    several: bool = False
    folders_differ: bool = False


class VideoFinder:
    """Finds videos by the paths of a table.

    A row names a video by its path below the root, by its absolute path, by the end of that path
    (`cam2.mp4` or `s3/cam2.mp4`, if no other video ends so), or by a longer path that ends with the
    video's (`/old/disk/s3/cam2.mp4`). So `s4/cam2.mp4` never names `s3/cam2.mp4`. Without such a
    video, a suffix may be missing or be that of another kind of video.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        names = [PurePosixPath(source.name).parts for source in sources]
        paths = [_absolute(source) for source in sources]
        self._full = _Ends(names, paths)
        self._stems = _Ends([_bare(name) for name in names], [_bare(path) for path in paths])

    def __call__(self, path: str) -> Match:
        written = PurePosixPath(path.strip().replace("\\", "/"))
        parts = tuple(part for part in written.parts if part != "..")
        if not written.name:
            return Match()
        found = self._full(parts)
        if found.video is None and not found.several:
            found = self._stems(parts)
        if found.video is None and not found.several and _is_video_suffix(written.suffix):
            found = self._stems(_bare(parts))
        return found


class _Ends:
    """Paths of videos by their ends."""

    def __init__(self, names: Sequence[Parts], paths: Sequence[Parts]) -> None:
        self._names = _numbers(names)
        self._whole = _numbers(paths)
        self._paths = paths
        self._by_length: dict[int, dict[Parts, list[int]]] = {}

    def __call__(self, parts: Parts) -> Match:
        for known in (self._names, self._whole, self._ends(len(parts))):
            if parts in known:
                return _only(known[parts])
        for begin in range(1, len(parts)):  # the longest first
            end = parts[begin:]
            if end in self._names:
                one = _only(self._names[end])
                return Match(one.video, one.several, len(end) == 1)
        return Match()

    def _ends(self, length: int) -> dict[Parts, list[int]]:
        if length not in self._by_length:
            self._by_length[length] = _numbers([path[-length:] for path in self._paths])
        return self._by_length[length]


def _only(videos: Sequence[int]) -> Match:
    return Match(videos[0]) if len(videos) == 1 else Match(several=True)


def _numbers(paths: Sequence[Parts]) -> dict[Parts, list[int]]:
    found: dict[Parts, list[int]] = {}
    for number, parts in enumerate(paths):
        found.setdefault(parts, []).append(number)
    return found


def _absolute(source: Source) -> Parts:
    # A table is UTF-8 in any locale.
    text = os.fsencode(source.path.absolute()).decode("utf-8", "backslashreplace")
    return PurePosixPath(text).parts


def _bare(parts: Parts) -> Parts:
    """Returns a path without the suffix of its file."""
    return (*parts[:-1], PurePosixPath(parts[-1]).stem)


def _is_video_suffix(suffix: str) -> bool:
    return suffix.lower() in VIDEO_SUFFIXES
