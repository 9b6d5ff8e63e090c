"""Finds the videos of a run, and those of them that one part of the run processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidssl.base.progress import SILENT, Progress
from vidssl.base.text import counted
from vidssl.dataset.video import Source, find_videos, locate_videos, name_videos
from vidssl.extraction.partition import Part, divide
from vidssl.extraction.video_manifest import describe_files
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class PartVideos:
    """The videos of one part of a run.

    Attributes:
        part: which part.
        ids: of its videos.
        seconds: how long they are together.
    """

    part: Part
    ids: frozenset[str]
    seconds: float


def find_part_videos(
    workspace: Workspace,
    videos: Path,
    part: Part | None,
    progress: Progress = SILENT,
    dry_run: bool = False,
) -> tuple[list[Source], PartVideos | None]:
    """Returns all the videos, sorted by name, and which of them one part processes.

    Args:
        videos: a folder, a file, or a list (see :func:`vidssl.dataset.video.find_videos`).
        part: None: this process does all videos, and None is returned for its part.
        dry_run: writes no manifest.

    Raises:
        VidsslError: there is no video, or a list names files that are missing.
    """
    if part is None:
        return find_videos(videos), None
    root, files = locate_videos(videos)
    rows = describe_files(None if dry_run else workspace, videos, files, progress)
    sources = name_videos(root, files, [rows[file].fingerprint for file in files])
    seconds = [rows[source.path].seconds for source in sources]
    mine = [i for i, owner in enumerate(divide(seconds, part.count)) if owner == part.index]
    ids = frozenset(sources[i].id for i in mine)
    part_videos = PartVideos(part, ids, sum(seconds[i] for i in mine))
    progress.say(_in_words(part_videos, len(sources), sum(seconds)))
    return sources, part_videos


def _in_words(part_videos: PartVideos, videos: int, seconds: float) -> str:
    """Says how much a part does, and how to turn off parts that nobody asked for."""
    part = part_videos.part
    by = "" if part.by == "--shard" else f" by {part.by} (--shard 0/1 does all of it here)"
    minutes, all_minutes = (f"{s / 60:.3g}" for s in (part_videos.seconds, seconds))
    count = f"{len(part_videos.ids)} of {counted(videos, 'video')}"
    return f"part {part}{by}: {count}, {minutes} of {all_minutes} minutes"
