"""Cuts the videos of a pack into segments: a table in a pack of its own, without frames.

All stages take the segments for videos, since that pack is opened like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vidssl.base.errors import UsageError
from vidssl.base.files import atomic_write
from vidssl.base.text import counted
from vidssl.shards import (
    SEGMENTS_FILE,
    Segment,
    ShardReader,
    open_shards,
    segments_digest,
    write_segments,
)
from vidssl.workspace.artifacts import FRAMES_ROLE, Artifact
from vidssl.workspace.workspace import Workspace

NONE = "none"


def segment_seconds(text: str) -> float | None:
    """Returns the length of segments that the user asked for; None: videos stay whole.

    Raises:
        UsageError: it is neither "none" nor a positive number.
    """
    if text == NONE:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"--segments is none or a number of seconds above 0, not {text!r:.60}")
    return seconds


def segment_pack(workspace: Workspace, name: str, frames: Artifact, seconds: float) -> Artifact:
    """Publishes a pack of the segments of a pack's videos, unless the newest pack is just that.

    Args:
        frames: the pack of the whole videos.
        seconds: about how long a segment is.
    """
    views = dict(frames.recipe["views"])
    recipe = {"stage": "segment", "views": views, "seconds": seconds}
    parents = {FRAMES_ROLE: frames}
    opened = workspace.open_run("pack", name, recipe, parents)
    if opened.finished is not None and workspace.newest("pack") == opened.finished:
        return opened.finished
    # Training takes the newest pack, so a segmentation that is asked for again is published again.
    with workspace.open_run("pack", name, recipe, parents, True) as run:
        with open_shards(frames) as reader:
            segments = [each for v in range(len(reader)) for each in cut_video(reader, v, seconds)]
        data = write_segments(segments)
        atomic_write(run.folder / SEGMENTS_FILE, data)
        summary = {
            "videos": frames.summary.get("videos", 0),
            "segments": len(segments),
            "views": frames.summary.get("views", {}),
        }
        return run.publish(segments_digest(frames.digest, data), summary)


def cut_video(reader: ShardReader, video: int, seconds: float) -> Iterator[Segment]:
    """Yields the segments of one video, of equal length and as near to `seconds` as can be.

    A video whose frame rate is unknown stays whole. Where a view is stored at a stride, segments
    begin at stored frames.
    """
    frames, fps = int(reader.videos.frames[video]), float(reader.videos.fps[video])
    stride = math.lcm(*(int(params.get("stride", 1)) for params in reader.views.values()))
    lag = max(frames - int(reader.frame_count(view)[video]) for view in reader.views)
    shortest = max(stride, lag + 1)
    count = round(frames / fps / seconds) if fps > 0 else 1
    count = max(1, min(count, frames // (2 * shortest)))
    edges = np.linspace(0, frames, count + 1).round().astype(int)
    edges[1:-1] -= edges[1:-1] % stride
    for begin, end in pairwise(edges):
        yield Segment(reader.video_id(video), int(begin), int(end))


def rows_of_segments(
    reader: ShardReader, rows: Sequence[Mapping[str, str]]
) -> list[Mapping[str, str]]:
    """Returns a row of annotations for each instance: that of its video, under its own id.

    Segments of one video are one group, and so never on both sides of a split.
    """
    known = {row["id"]: row for row in rows}
    found: list[Mapping[str, str]] = []
    for video in range(len(reader)):
        row = known[reader.whole_id(video)]
        group = row.get("group") or row["id"]
        found.append({**row, "id": reader.video_id(video), "group": group})
    return found


def describe_segments(reader: ShardReader) -> list[str]:
    """Returns what the user should know of a pack of segments."""
    whole = [reader.whole_id(v) for v in range(len(reader))]
    unknown = {whole[v].rpartition("#")[0] for v in np.flatnonzero(~(reader.videos.fps > 0))}
    videos = counted(len(set(whole)), "video")
    notes = [f"{videos} in {counted(len(whole), 'segment')}: each counts as a video from here on"]
    for name in sorted(unknown):
        notes.append(f"{name}: its frame rate is unknown, so it was left whole")
    return notes


def newer_segments(workspace: Workspace, frames: Artifact) -> list[str]:
    """Returns a note where a pack of whole videos is not what later commands would take."""
    newest = workspace.newest("pack")
    if newest is None or newest.parents.get(FRAMES_ROLE) != frames.digest:
        return []
    return [
        f"{newest.label} is newer and cuts these videos into segments, and later commands take "
        f"it; for whole videos give them --pack {frames.label.removeprefix('pack/')}"
    ]


def remake_segments(workspace: Workspace, name: str, frames: Artifact, made: Artifact) -> Artifact:
    """Makes a pack of segments again from its recipe."""
    recipe: Mapping[str, Any] = made.recipe
    return segment_pack(workspace, name, frames, float(recipe["seconds"]))
