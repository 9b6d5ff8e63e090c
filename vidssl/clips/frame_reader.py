"""What clips are read from: a reader of stored frames, and the videos to train on.

Legend: H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np


class FrameReader(Protocol):
    """The part of :class:`vidssl.shards.ShardReader` that clips are made with.

    Attributes:
        views: {view: parameters with which its frames are stored}.
    """

    @property
    def views(self) -> Mapping[str, Mapping[str, Any]]: ...

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the number of frames of every video."""

    def frame_bytes(self, view: str) -> float:
        """Returns the mean size in bytes of a view's stored frames."""

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """Returns decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        Args:
            for_copying: the caller only copies pixels out, so their order in memory is free.
        """

    def read(self, view: str, video: int, indices: np.ndarray) -> list[bytes]:
        """Returns frames as they are stored (encoded), in the order asked for."""


class FrameReaderWrapper:
    """Passes every call on to another reader; subclasses change single methods."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader

    @property
    def views(self) -> Mapping[str, Mapping[str, Any]]:
        """Parameters with which the frames of each view are stored."""
        return self._reader.views

    def frame_count(self, view: str) -> np.ndarray:
        """As :meth:`FrameReader.frame_count`."""
        return self._reader.frame_count(view)

    def frame_bytes(self, view: str) -> float:
        """As :meth:`FrameReader.frame_bytes`."""
        return self._reader.frame_bytes(view)

    def read(self, view: str, video: int, indices: np.ndarray) -> list[bytes]:
        """As :meth:`FrameReader.read`."""
        return self._reader.read(view, video, indices)

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """As :meth:`FrameReader.pictures`."""
        return self._reader.pictures(view, video, indices, for_copying=for_copying)


@dataclass(frozen=True)
class TrainingVideos:
    """The videos that may be trained on, with a row for each in all three arrays.

    Attributes:
        reader: reads their frames.
        index: number of the video in its pack.
        source: number of the group it was cut from.
        label: class number, -1 where there is none.
    """

    reader: FrameReader
    index: np.ndarray
    source: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


class LazyFrames:
    """Frames of one view of one video, decoded one by one while they are iterated over.

    The first frame is decoded at once, since only a decoded frame tells its size for sure. The
    others are decoded when their turn comes. The frames can be iterated over once.

    Args:
        pictures: decodes the frames, uint8 [H, W, C] each; at least one.

    Attributes:
        size: (H, W) of the first frame.
    """

    def __init__(self, pictures: Iterable[np.ndarray]) -> None:
        rest = iter(pictures)
        first = next(rest)
        self.size: tuple[int, int] = first.shape[:2]
        self._frames = chain([first], rest)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._frames
