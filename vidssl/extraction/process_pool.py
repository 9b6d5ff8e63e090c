"""Processes many videos at once: one process and one core per video.

Workers send their results to the parent, and only the parent writes. A worker sends either one
result per video (:func:`process_videos`), or several chunks and then the result
(:func:`stream_videos`). An error in a worker costs that one video. A worker may also die (a decoder
can crash, memory can be short): its video is tried again at once, and if that worker dies too, once
more at the end, alone. A worker's memory is bounded (:mod:`vidssl.extraction.worker_memory`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2

from vidssl.base.cores_and_memory import cores
from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.signals import (
    StopRequest,
    end_with_parent,
    signals_blocked_in_children,
    stop_requests,
)
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import end_this_process_where_it_stalls
from vidssl.extraction.worker_memory import bound_memory, is_shortage, worker_memory
from vidssl.shards import VideoRecord

CHECK_SIGNALS_EVERY = 0.2  # seconds
SHORT_OF_MEMORY = "it takes more memory than a process may have here"


@dataclass(frozen=True)
class VideoResult:
    """The result for one video: its record and the blobs of each view, or why there are none.

    Attributes:
        unlucky: there is none because the process died or was short of memory, which another
            attempt may escape.
    """

    record: VideoRecord | None = None
    blobs: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    reason: str = ""
    unlucky: bool = False


class Restarted:
    """Sent when an attempt at a video failed: its earlier chunks are void, and all come again."""


VideoFunction = Callable[[Source], VideoResult]
VideoGenerator = Callable[[Source], Iterator[Any]]  # yields chunks, and a VideoResult at the end

# Yields each of some videos with its result, each once, in any order. Closing the iterator stops
# its workers; after a signal it raises Interrupted.
VideoResults = Generator[tuple[Source, VideoResult], None, None]
Pool = Callable[[Sequence[Source]], VideoResults]
VideoEvent = tuple[Source, Any]  # a video, and a chunk, Restarted or VideoResult of it
VideoEvents = Generator[VideoEvent | None, None, None]


def process_videos(
    sources: Sequence[Source],
    function: VideoFunction,
    workers: int | None = None,
    bounded: bool = True,
) -> VideoResults:
    """Yields each video with its result, in the order in which they are finished.

    Args:
        function: can be pickled; runs in a worker with OpenCV's threads off.
        workers: processes; None: one per core.
        bounded: whether a worker's memory is; networks and code of users take what they need.

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: workers cannot be started.
    """
    generator = partial(_yield_result, function=function)
    events = stream_videos(sources, generator, workers, CHECK_SIGNALS_EVERY, bounded)
    with closing(events):
        for event in events:
            if event is not None and isinstance(event[1], VideoResult):
                yield event


def stream_videos(
    sources: Sequence[Source],
    generator: VideoGenerator,
    workers: int | None,
    patience: float,
    bounded: bool = True,
) -> VideoEvents:
    """Yields each video with the chunks that a worker makes of it, as they arrive.

    A worker that is ahead of its reader waits, so few chunks are in memory at once.

    Args:
        generator: can be pickled; yields chunks and then a :class:`VideoResult`, in a worker with
            OpenCV's threads off. An error becomes a result with its reason.
        workers: processes; None: one per core.
        patience: seconds after which None is yielded if nothing has arrived.
        bounded: as in :func:`process_videos`.

    Yields:
        (video, chunk), (video, :class:`Restarted`) and, once for each video, (video, result).

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: workers cannot be started.
    """
    count = min(workers or cores(), len(sources))
    suspects: list[Source] = []
    with stop_requests() as stop:
        for event in _work(sources, _Start(generator, count, bounded), patience, stop):
            yield _set_aside(event, suspects)
        # Others may have caused it: they filled the memory, say.
        for suspect in suspects:
            yield from _work([suspect], _Start(generator, 1, bounded), patience, stop, attempts=1)


def _set_aside(event: VideoEvent | None, suspects: list[Source]) -> VideoEvent | None:
    """Notes a video that was unlucky, and voids its chunks."""
    if event is None or not isinstance(event[1], VideoResult) or not event[1].unlucky:
        return event
    suspects.append(event[0])
    return event[0], Restarted()


def _work(
    sources: Sequence[Source], start: _Start, patience: float, stop: StopRequest, attempts: int = 2
) -> VideoEvents:
    """Does videos in `start.count` workers; each has so many attempts if workers die."""
    left = list(reversed(sources))
    pool: list[_Worker] = []
    crashed: Counter[str] = Counter()
    try:
        pool += [_Worker(start) for _ in range(start.count)]
        for worker in pool:
            worker.give(left)
        while busy := {worker.pipe: worker for worker in pool if worker.source is not None}:
            ready = wait(list(busy), patience)
            for pipe in ready:
                worker = busy[pipe]  # type: ignore[index]
                source, chunk = worker.take()
                if worker.dead:
                    crashed[source.id] += 1
                    if chunk.unlucky and crashed[source.id] < attempts:
                        left.append(source)
                        chunk = Restarted()
                    pool.remove(worker)
                    worker = _Worker(start) if left else worker
                    pool.append(worker)
                if worker.source is None:
                    worker.give(left)
                yield source, chunk
            if not ready:
                yield None
            raise_if_stopped(stop)
    finally:
        for worker in pool:
            worker.end()


def raise_if_stopped(stop: StopRequest) -> None:
    """Raises :class:`Interrupted` if a signal came."""
    if stop.signal_number is not None:
        raise Interrupted(
            "stopped; finished videos are kept: run the same command again to go on",
            stop.signal_number,
        )


@dataclass(frozen=True)
class _Start:
    """What a worker is started with: what it does, and how many there are to share the memory."""

    generator: VideoGenerator
    count: int
    bounded: bool

    def memory(self) -> int | None:
        return worker_memory(self.count) if self.bounded else None


class _Worker:
    """A process that gets one video at a time, and the parent's end of the pipe to it."""

    def __init__(self, start: _Start) -> None:
        # spawn: a fork would copy the locks of whatever threads the parent runs.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, start.generator, start.memory()),
            daemon=True,
            name="vidssl-video",
        )
        with signals_blocked_in_children():
            self.process.start()
        theirs.close()
        self.source: Source | None = None
        self.dead = False
        self._started = False

    def give(self, left: list[Source]) -> None:
        """Sends the next video if there is one, and takes it off the list."""
        self.source = left.pop() if left else None
        if self.source is not None:
            with suppress(OSError):  # it died in between; take() finds out
                self.pipe.send(self.source)

    def take(self) -> tuple[Source, Any]:
        """Receives a chunk of the video or its result; a failed result if the worker died."""
        source = self.source
        assert source is not None
        try:
            chunk = self.pipe.recv()
            self._started = True
        except (EOFError, OSError):
            self.process.join()
            self.dead = True
            code = self.process.exitcode or 0
            if not self._started and code == 1:
                raise VidsslError(
                    "worker processes cannot start: in a script of your own, put what it does "
                    "under `if __name__ == '__main__':`"
                ) from None
            chunk = _death(code)
        if isinstance(chunk, VideoResult):
            self.source = None
        return source, chunk

    def end(self) -> None:
        """Kills the process; only unfinished videos are lost."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _death(code: int) -> VideoResult:
    """Returns the result of a video whose worker died with this exit code, or signal below 0."""
    if code == -signal.SIGALRM:
        return VideoResult(reason="the decoder hung for longer than --max-stall allows")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    why = ": memory was short, or somebody ended it" if code == -signal.SIGKILL else ""
    reason = f"the process that worked on it crashed ({how}){why}"
    return VideoResult(reason=reason, unlucky=True)


# ── in the worker ────────────────────────────────────────────────────────────────────────────


def _serve(pipe: Connection, generator: VideoGenerator, memory: int | None) -> None:
    """Runs in the worker: processes one video after another until the parent closes the pipe."""
    end_with_parent()
    end_this_process_where_it_stalls()
    bound_memory(memory)
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"  # in case the function loads PyTorch
    while True:
        try:
            source = pipe.recv()
        except EOFError:
            return
        for chunk in _chunks(generator, source):
            _send(pipe, chunk)


def _send(pipe: Connection, chunk: Any) -> None:
    try:
        pipe.send(chunk)  # it makes the whole message before it sends a byte
    except MemoryError as error:
        pipe.send(_failed(error))


def _chunks(generator: VideoGenerator, source: Source) -> Iterator[Any]:
    try:
        yield from generator(source)
    except Exception as error:
        yield _failed(error)


def process_video(
    function: VideoFunction, source: Source, but: tuple[type[Exception], ...] = ()
) -> VideoResult:
    """Returns the result for one video; an error becomes the result's reason.

    Args:
        but: errors that are raised instead, because the video does not cause them.
    """
    try:
        return function(source)
    except but:
        raise
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> VideoResult:
    # One strange file must not end a run of many hours.
    if is_shortage(error):
        return VideoResult(reason=SHORT_OF_MEMORY, unlucky=True)
    if isinstance(error, VidsslError):
        return VideoResult(reason=str(error))
    text = " ".join(str(error).split())
    return VideoResult(reason=f"{type(error).__name__}: {text}"[:300])


def _yield_result(source: Source, function: VideoFunction) -> Iterator[VideoResult]:
    yield function(source)
