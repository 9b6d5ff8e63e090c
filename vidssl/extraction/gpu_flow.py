"""Flow of many videos by one method that works in batches: extract-flow on a device.

    processes, one video each          this process                          threads
    decode, grey, working size ─────► pairs ─► BatchedFlow ─► flows ─────► stored size,
                                                                            8 bits, encode

All of it overlaps: workers decode while the device computes, and flows are encoded while the next
are computed. Pairs are drawn as the method has room, so a worker that is ahead waits and memory
stays bounded. Flows come back in any order, from several videos at once; each video's are put in
order here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidssl.base.resources import cores
from vidssl.dataset.video import Source
from vidssl.extraction.process_pool import BeganAgain, Product, stream_videos
from vidssl.optical_flow.batched import BatchedFlow, FramePair

CHUNK = 16  # frames a worker sends at a time
PATIENCE = 0.002  # seconds to wait for frames before the device goes on with what it has
WAITING = 64  # flows for each encoder thread that may wait to be encoded


@dataclass(frozen=True)
class Frames:
    """Some consecutive frames of a video as the method takes them: uint8 [T, H, W] or RGB."""

    frames: np.ndarray


Decode = Callable[[Source], Iterator[Frames | Product]]
Encode = Callable[[np.ndarray], bytes]


def in_chunks(frames: Iterator[np.ndarray]) -> Iterator[Frames]:
    """Returns frames of one size in :class:`Frames` of at most :data:`CHUNK`."""
    chunk: list[np.ndarray] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == CHUNK:
            yield Frames(np.stack(chunk))
            chunk = []
    if chunk:
        yield Frames(np.stack(chunk))


@dataclass(eq=False)
class _Video:
    """What is known of one attempt at a video.

    Attributes:
        last: its latest frame, the first of the next pair.
        pairs: that were formed so far.
        blobs: encoded flow by index, done or being encoded.
        product: the worker's last word, once it came.
    """

    source: Source
    last: np.ndarray | None = None
    pairs: int = 0
    blobs: dict[int, Future[bytes]] = field(default_factory=dict)
    product: Product | None = None

    def done(self) -> bool:
        if self.product is None:
            return False
        unusable = self.product.record is None
        return unusable or (
            len(self.blobs) == self.pairs and all(blob.done() for blob in self.blobs.values())
        )

    def finished(self, view: str) -> Product:
        """Returns the worker's word with the blobs in order; waits for the encoders."""
        assert self.product is not None
        if self.product.record is None:
            return self.product
        blobs = [self.blobs[index].result() for index in range(self.pairs)]
        return Product(self.product.record, {view: blobs})


class _Desk:
    """Forms pairs of frames as they come, and puts flows back in order."""

    def __init__(self, view: str, encode: Encode, encoders: ThreadPoolExecutor, room: int) -> None:
        self.view, self.encode, self.encoders, self.room = view, encode, encoders, room
        self._open: dict[str, _Video] = {}
        self._ended: list[_Video] = []
        self._encoding: deque[Future[bytes]] = deque()

    def pairs(self, events: Iterator[tuple[Source, Any] | None]) -> Iterator[FramePair | None]:
        for event in events:
            if event is None:
                yield None
                continue
            source, part = event
            video = self._open.setdefault(source.id, _Video(source))
            if isinstance(part, BeganAgain):
                del self._open[source.id]  # flows of the first attempt find nobody
            elif isinstance(part, Product):
                video.product = part
                self._ended.append(self._open.pop(source.id))
            else:
                for frame in part.frames:
                    if video.last is not None:
                        yield FramePair((video, video.pairs), video.last, frame)
                        video.pairs += 1
                    video.last = frame

    def take(self, video: _Video, index: int, flow: np.ndarray) -> None:
        while len(self._encoding) >= self.room:
            self._encoding.popleft().result()
        blob = self.encoders.submit(self.encode, flow)
        self._encoding.append(blob)
        video.blobs[index] = blob

    def finished(self, wait: bool = False) -> Iterator[tuple[Source, Product]]:
        """Returns the videos whose blobs are all there; with `wait` all that have ended."""
        done = [video for video in self._ended if wait or video.done()]
        for video in done:
            self._ended.remove(video)
            yield video.source, video.finished(self.view)


def extract_in_batches(
    sources: Sequence[Source],
    *,
    decode: Decode,
    flow: Callable[[], BatchedFlow],
    encode: Encode,
    view: str,
    workers: int | None = None,
) -> Iterator[tuple[Source, Product]]:
    """Returns each video with its encoded flow, in the order in which they get done.

    Args:
        decode: gives a video's frames in chunks and then a :class:`Product` with its record but
            no blobs; a function that can be pickled.
        flow: makes the method; called once, when there is work.
        encode: makes a blob of one flow, float32 [H, W, 2]; called in threads.
        view: under which name the blobs are given.
        workers: processes that decode; None: one per core.

    Raises:
        Interrupted: SIGINT or SIGTERM came; nothing is lost that was given before.
        VidsslError: workers cannot be started, or the device lacks memory.
    """
    if not sources:
        return
    threads = cores()
    method = flow()
    with (
        ThreadPoolExecutor(threads, "vidssl-encode") as encoders,
        closing(stream_videos(sources, decode, workers, PATIENCE)) as events,
    ):
        desk = _Desk(view, encode, encoders, WAITING * threads)
        for (video, index), result in method.flows(desk.pairs(events)):
            desk.take(video, index, result)
            yield from desk.finished()
        yield from desk.finished(wait=True)
