"""One video while it is decoded: its frames, how many there are, and its record for the shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.dataset.decoding import decode, frame_rate
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.shards import VideoRecord


class UnusableVideo(VidsslError):
    """A video that can be decoded and yet not be used; the text is the reason."""


class DecodedVideo(Iterator[np.ndarray]):
    """Yields the frames of a video, RGB uint8 [H, W, 3], and counts them.

    Attributes:
        source: the file.
        count: frames that were decoded so far.
        width, height: of the frames, in pixels; 0 before the first one.
        notes: what the user should know about damage, one sentence each.

    Raises:
        UnreadableVideo: at the first frame, where nothing can be decoded.
        OverBound: at any frame, where the video exceeds one of its bounds.
    """

    def __init__(self, source: Source, bounds: VideoBounds = DEFAULT_BOUNDS) -> None:
        self.source, self._bounds = source, bounds
        self.count = self.width = self.height = 0
        self.notes: list[str] = []
        self._frames = decode(source.path, self.notes, bounds)

    def __next__(self) -> np.ndarray:
        frame = next(self._frames)
        self.count += 1
        self.height, self.width = frame.shape[:2]
        return frame

    def read_to_end(self) -> None:
        """Decodes the frames that nobody asked for, so that they are counted as well."""
        for _ in self:
            pass

    def record(self) -> VideoRecord:
        """Returns the video's record; to be called after the last frame."""
        return VideoRecord(
            id=self.source.id,
            path=self.source.name,
            fps=frame_rate(self.source.path, self._bounds),
            frames=self.count,
            width=self.width,
            height=self.height,
            note="; ".join(self.notes),
        )
