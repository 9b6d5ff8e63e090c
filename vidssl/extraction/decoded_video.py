"""One video while it is decoded: its frames, how many there are, and its record for the shards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.dataset.coded_frames import CodedFrame
from vidssl.dataset.decoding import decode, decode_vectors, frame_rate
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.shards import VideoRecord


class UnusableVideo(VidsslError):
    """A video that can be decoded and yet not be used; the text is the reason."""


T = TypeVar("T")


class CountedVideo(Iterator[T]):
    """Yields what is read of each frame of a video, and counts the frames.

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
        self._frames = self._read()

    @abstractmethod
    def _read(self) -> Iterator[T]:
        """Opens the video and yields its frames."""

    @abstractmethod
    def _size(self, frame: T) -> tuple[int, int]:
        """Returns a frame's (height, width)."""

    def __next__(self) -> T:
        frame = next(self._frames)
        self.count += 1
        if self.count == 1:
            self.height, self.width = self._size(frame)
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


class DecodedVideo(CountedVideo[np.ndarray]):
    """The pixels of a video: RGB uint8 [H, W, 3], all of one size."""

    def _read(self) -> Iterator[np.ndarray]:
        return decode(self.source.path, self.notes, self._bounds)

    def _size(self, frame: np.ndarray) -> tuple[int, int]:
        return frame.shape[0], frame.shape[1]


class CodedVideo(CountedVideo[CodedFrame]):
    """What the codec recorded about a video's frames, its motion vectors above all.

    Raises:
        NoVectors: at any frame, where it recorded none.
    """

    def _read(self) -> Iterator[CodedFrame]:
        return decode_vectors(self.source.path, self.notes, self._bounds)

    def _size(self, frame: CodedFrame) -> tuple[int, int]:
        return frame.upright_size()
