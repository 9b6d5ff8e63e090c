"""Segments: stretches of the videos of a pack, read as if each were a video of its own.

    segments.csv    id,begin,end    one row per instance; frames begin to end − 1 of that video

The frames stay in the shards of the pack that was cut up, once per video.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.shards.index import VideoTable
from vidssl.shards.reader import ShardReader

SEGMENTS_FILE = "segments.csv"
HEADER = ["id", "begin", "end"]


@dataclass(frozen=True)
class Segment:
    """Frames `begin` to `end` − 1 of the video `id`."""

    id: str
    begin: int
    end: int


def write_segments(segments: Iterable[Segment]) -> bytes:
    """Returns the content of a `segments.csv`, sorted by video and first frame."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    table.writerows(sorted((each.id, each.begin, each.end) for each in segments))
    return text.getvalue().encode()


def read_segments(data: bytes, where: str) -> list[Segment]:
    """Returns the segments in the bytes of a `segments.csv`.

    Raises:
        VidsslError: it is no table of segments.
    """
    try:
        header, *rows = csv.reader(io.StringIO(data.decode()))
        if header != HEADER:
            raise ValueError(f"it begins with {header}")
        return [Segment(name, int(begin), int(end)) for name, begin, end in rows]
    except (ValueError, csv.Error) as error:
        raise VidsslError(f"{where} is no table of segments: {error}") from None


def segments_digest(frames: str, data: bytes) -> str:
    """Returns the digest of a pack of segments, from that of the frames and from its table."""
    return hashlib.sha256(f"{frames}:{hashlib.sha256(data).hexdigest()}".encode()).hexdigest()


def instance_id(segment: Segment, frames: int) -> str:
    """Returns the id of a segment of a video of `frames` frames; a whole video keeps its own.

    The range stands before the fingerprint of the file, and sorts in the order of time.
    """
    if (segment.begin, segment.end) == (0, frames):
        return segment.id
    path, mark, fingerprint = segment.id.rpartition("#")
    return f"{path}@{segment.begin:08d}-{segment.end:08d}{mark}{fingerprint}"


class SegmentReader(ShardReader):
    """Reads segments from the shards of whole videos: each instance is a video here.

    A derived view ends as many frames before a segment's end as before its video's, so that no
    frame of it was computed from frames beyond the segment.

    Args:
        whole: reads the whole videos.
        data: the content of the table.
        where: the table's path, for sentences.

    Raises:
        VidsslError: the table is none, or does not fit the videos.
    """

    def __init__(self, whole: ShardReader, data: bytes, where: str) -> None:
        self.__setstate__(whole.__getstate__())
        self.__dict__["digest"] = segments_digest(whole.digest, data)
        segments = read_segments(data, where)
        rows = [self._row_of(whole, segment, where) for segment in segments]
        if not rows:
            raise VidsslError(f"{where} is damaged: it has no segment")
        ids = [
            instance_id(segment, int(whole.videos.frames[row]))
            for segment, row in zip(segments, rows, strict=True)
        ]
        order = np.argsort(np.array([name.encode() for name in ids]), kind="stable")
        self._whole_row = np.array(rows, np.int64)[order]
        self._whole_ids = [segments[i].id for i in order]
        self._begins = np.array([segments[i].begin for i in order], np.int64)
        ends = np.array([segments[i].end for i in order], np.int64)
        self.videos = _cut_table(whole.videos, self._whole_row, ends - self._begins)
        self.videos = replace(self.videos, id=np.array([ids[i].encode() for i in order]))
        self._check_ids()

    @staticmethod
    def _row_of(whole: ShardReader, segment: Segment, where: str) -> int:
        row = whole.find(segment.id)
        if row is None:
            raise VidsslError(f"{where} is damaged: the pack has no video {segment.id:.200}")
        frames = int(whole.videos.frames[row])
        shortest = 1 + max(frames - int(length[row]) for length in whole.videos.length.values())
        if not 0 <= segment.begin <= segment.end - shortest <= frames - shortest:
            raise VidsslError(
                f"{where} is damaged: {segment.id:.200} has {frames} frames, and no segment "
                f"from {segment.begin} to {segment.end}"
            )
        return row

    def first_frame(self, video: int) -> int:
        return int(self._begins[video])

    def whole_id(self, video: int) -> str:
        return self._whole_ids[video]


def _cut_table(videos: VideoTable, rows: np.ndarray, frames: np.ndarray) -> VideoTable:
    """Returns the rows of some videos, each with another number of frames."""
    columns = ("id", "path", "digest", "fps", "width", "height", "shard", "row")
    lag = {view: (videos.frames - length)[rows] for view, length in videos.length.items()}
    return VideoTable(
        **{name: getattr(videos, name)[rows] for name in columns},
        frames=frames,
        length={view: frames - each for view, each in lag.items()},
    )
