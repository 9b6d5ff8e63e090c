"""Keeps decoded frames in memory, where all frames of a set of videos fit.

With a small network on a CPU, decoding takes a good part of each step, and every epoch decodes the
same frames again. Large sets are not cached: too few of their frames would fit to save time.

Legend: H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock

import numpy as np

from vidssl.base.cores_and_memory import free_memory
from vidssl.clips.frame_reader import FrameReader, FrameReaderWrapper, TrainingVideos

MOST_BYTES = 1 << 30
SHARE_OF_FREE = 4  # at most a fourth of the free memory: other programs need some as well


class FrameCache(FrameReaderWrapper):
    """Reads each frame from another reader once, and keeps it.

    The frames are those of the other reader, but read-only. Safe for threads.

    Args:
        most: bytes of frames to keep; frames that do not fit are returned and not kept.

    Attributes:
        bytes: size of the frames that are kept.
    """

    def __init__(self, reader: FrameReader, most: int) -> None:
        super().__init__(reader)
        self._most = most
        self._kept: dict[tuple[str, int, int], np.ndarray] = {}
        self._lock = Lock()
        self.bytes = 0

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterator[np.ndarray]:
        """Yields decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        Args:
            for_copying: ignored; frames in memory are always in order.

        Raises:
            As the other reader.
        """
        # Looked up once, since other threads may add frames meanwhile.
        here = {int(i): self._kept.get((view, video, int(i))) for i in np.unique(indices)}
        missing = np.array([i for i, frame in here.items() if frame is None], np.int64)
        decoded = iter(self._reader.pictures(view, video, missing)) if len(missing) else iter(())
        for index, frame in here.items():
            yield self._keep((view, video, index), next(decoded)) if frame is None else frame

    def _keep(self, place: tuple[str, int, int], frame: np.ndarray) -> np.ndarray:
        frame.flags.writeable = False
        with self._lock:
            if place not in self._kept and self.bytes + frame.nbytes <= self._most:
                self._kept[place] = frame if frame.base is None else frame.copy()
                self._kept[place].flags.writeable = False
                self.bytes += frame.nbytes
        return frame


def with_frame_cache(
    videos: TrainingVideos, views: Sequence[str], most: int | None = None
) -> TrainingVideos:
    """Returns the videos with a reader that keeps their decoded frames, if all frames fit.

    Args:
        views: the views that will be read.
        most: bytes; None: 1 GiB, or a fourth of the free memory where that is less.

    Raises:
        VidsslError: a view is missing, or its first frame is damaged.
    """
    if most is None:
        free = free_memory()
        most = MOST_BYTES if free is None else min(MOST_BYTES, free // SHARE_OF_FREE)
    if expected_bytes(videos, views) > most:
        return videos
    return replace(videos, reader=FrameCache(videos.reader, most))


def expected_bytes(videos: TrainingVideos, views: Sequence[str]) -> int:
    """Returns the bytes of all decoded frames, if all are as large as the first video's first."""
    first, total = int(videos.index[0]), 0
    for view in views:
        frames = int(videos.reader.frame_count(view)[videos.index].sum())
        (frame,) = videos.reader.pictures(view, first, np.zeros(1, np.int64))
        total += frames * frame.nbytes
    return total
