"""Frames that stay in memory once they are decoded, where a set of videos is small enough.

Decoding costs a small network on a CPU a good part of each step, and over the epochs it meets the
same frames again and again. Large sets are read as ever: of them too little would stay to tell.

Legend: H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock

import numpy as np

from vidssl.base.resources import free_memory
from vidssl.clips.frame_reader import FrameReader, FrameReaderWrapper, TrainingVideos

MOST_BYTES = 1 << 30
SHARE_OF_FREE = 4  # a fourth of the memory that is free, at most: others want some as well


class DecodedFrames(FrameReaderWrapper):
    """A reader of frames that asks another one for each frame once, and then keeps it.

    Frames are as the other reader gives them, but cannot be written to. Safe for threads.

    Args:
        most: bytes of frames to keep; those that come when they are used up are not kept.

    Attributes:
        bytes: of the frames that are kept.
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
        """Returns decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        Args:
            for_copying: is no matter here; memory is in order.

        Raises:
            As the other reader.
        """
        # What is here is looked up once: other threads may add to it meanwhile.
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


def decoded_once(
    videos: TrainingVideos, views: Sequence[str], most: int | None = None
) -> TrainingVideos:
    """Returns the videos with a reader that keeps their decoded frames, if all of them fit.

    Args:
        views: those that will be read.
        most: bytes; None: 1 GiB, or a fourth of the free memory where that is less.

    Raises:
        VidsslError: a view is lacking, or its first frame is damaged.
    """
    if most is None:
        free = free_memory()
        most = MOST_BYTES if free is None else min(MOST_BYTES, free // SHARE_OF_FREE)
    if expected_bytes(videos, views) > most:
        return videos
    return replace(videos, reader=DecodedFrames(videos.reader, most))


def expected_bytes(videos: TrainingVideos, views: Sequence[str]) -> int:
    """Returns the bytes of all frames decoded, as if all were as large as the first video's
    first.
    """
    first, total = int(videos.index[0]), 0
    for view in views:
        frames = int(videos.reader.frame_count(view)[videos.index].sum())
        (frame,) = videos.reader.pictures(view, first, np.zeros(1, np.int64))
        total += frames * frame.nbytes
    return total
