"""Computes the flow of many videos on one GPU, in batches that mix frames of several videos.

    processes, one video each          this process                          threads
    decode, grey, working size ─────► pairs ─► BatchedFlow ─► flows ─────► stored size,
                                                                            8 bits, encode

All steps overlap: workers decode while the GPU computes, and flows are encoded while the next are
computed. The method takes pairs only when it has room, so a worker that is ahead waits and memory
stays bounded. Flows come back in any order, from several videos at once; this module puts those of
each video in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from vidssl.base.cores_and_memory import cores
from vidssl.dataset.video import Source
from vidssl.extraction.process_pool import Restarted, VideoResult, VideoResults, stream_videos
from vidssl.optical_flow.batched import BatchedFlow, FramePair

CHUNK = 16  # frames that a worker sends at a time
PATIENCE = 0.002  # seconds to wait for frames before the GPU goes on with those it has
WAITING = 64  # flows for each encoder thread that may wait to be encoded


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive frames as the method takes them: uint8 [T, H, W], or RGB uint8 [T, H, W, 3]."""

    frames: np.ndarray


Decode = Callable[[Source], Iterator[FrameChunk | VideoResult]]
Encode = Callable[[np.ndarray], bytes]


def in_chunks(frames: Iterator[np.ndarray]) -> Iterator[FrameChunk]:
    """Yields frames of one size in chunks of at most :data:`CHUNK`."""
    chunk: list[np.ndarray] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == CHUNK:
            yield FrameChunk(np.stack(chunk))
            chunk = []
    if chunk:
        yield FrameChunk(np.stack(chunk))


@dataclass(eq=False)
class _OpenVideo:
    """A video whose frames are arriving, in one attempt of a worker.

    Attributes:
        last: its latest frame, the first of the next pair.
        pairs: how many were formed so far.
        blobs: encoded flow by index, done or being encoded.
        result: what the worker sent at the end; None before.
    """

    source: Source
    last: np.ndarray | None = None
    pairs: int = 0
    blobs: dict[int, Future[bytes]] = field(default_factory=dict)
    result: VideoResult | None = None

    def done(self) -> bool:
        """Whether all flows of the video are computed and encoded."""
        if self.result is None:
            return False
        unusable = self.result.record is None
        return unusable or (
            len(self.blobs) == self.pairs and all(blob.done() for blob in self.blobs.values())
        )

    def finished(self, view: str) -> VideoResult:
        """Returns the worker's result with the blobs in order; waits for the encoders."""
        assert self.result is not None
        if self.result.record is None:
            return self.result
        blobs = [self.blobs[index].result() for index in range(self.pairs)]
        return VideoResult(self.result.record, {view: blobs})


class _FlowCollector:
    """Forms pairs from arriving frames, and collects the flows of each video in order."""

    def __init__(self, view: str, encode: Encode, encoders: ThreadPoolExecutor, room: int) -> None:
        self.view, self.encode, self.encoders, self.room = view, encode, encoders, room
        self._open: dict[str, _OpenVideo] = {}
        self._ended: list[_OpenVideo] = []
        self._encoding: deque[Future[bytes]] = deque()

    def pairs(self, events: Iterator[tuple[Source, Any] | None]) -> Iterator[FramePair | None]:
        """Yields the pairs of frames that arrive; None while nothing arrives."""
        for event in events:
            if event is None:
                yield None
                continue
            source, chunk = event
            video = self._open.setdefault(source.id, _OpenVideo(source))
            if isinstance(chunk, Restarted):
                del self._open[source.id]  # flows of the first attempt are dropped with it
            elif isinstance(chunk, VideoResult):
                video.result = chunk
                self._ended.append(self._open.pop(source.id))
            else:
                for frame in chunk.frames:
                    if video.last is not None:
                        yield FramePair((video, video.pairs), video.last, frame)
                        video.pairs += 1
                    video.last = frame

    def take(self, video: _OpenVideo, index: int, flow: np.ndarray) -> None:
        """Has one flow encoded; waits while too many are waiting already."""
        while len(self._encoding) >= self.room:
            self._encoding.popleft().result()
        blob = self.encoders.submit(self.encode, flow)
        self._encoding.append(blob)
        video.blobs[index] = blob

    def finished(self, wait: bool = False) -> Iterator[tuple[Source, VideoResult]]:
        """Yields the videos whose blobs are complete; with `wait`, all that workers finished."""
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
) -> VideoResults:
    """Yields each video with its encoded flow, in the order in which they are finished.

    Args:
        decode: yields a video's frames in chunks, and then a :class:`VideoResult` with its record
            but no blobs; can be pickled.
        flow: makes the method; called once, and only if there are videos.
        encode: makes a blob of one flow, float32 [H, W, 2]; called in threads.
        view: the name of the view that the blobs belong to.
        workers: processes that decode; None: one per core.

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: workers cannot be started, or the GPU lacks memory.
    """
    if not sources:
        return
    threads = cores()
    method = flow()
    with (
        ThreadPoolExecutor(threads, "vidssl-encode") as encoders,
        closing(stream_videos(sources, decode, workers, PATIENCE)) as events,
    ):
        collector = _FlowCollector(view, encode, encoders, WAITING * threads)
        for tag, result in method.flows(collector.pairs(events)):
            video, index = cast(tuple[_OpenVideo, int], tag)  # as pairs() made it
            collector.take(video, index, result)
            yield from collector.finished()
        yield from collector.finished(wait=True)
