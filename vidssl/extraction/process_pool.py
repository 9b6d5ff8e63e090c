"""Processes many videos at once: one process and one core per video.

Workers send their results to the parent, and only the parent writes. A worker sends either one
result per video (:func:`process_videos`), or several chunks and then the result
(:func:`stream_videos`). An error in a worker costs that one video. So does a worker that dies (a
decoder can crash), but its video is tried once more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
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
from vidssl.shards import VideoRecord

CHECK_SIGNALS_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class VideoResult:
    """The result for one video: its record and the blobs of each view, or why there are none."""

    record: VideoRecord | None = None
    blobs: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    reason: str = ""


class Restarted:
    """Sent when the worker of a video died: its earlier chunks are void, and all are sent again."""


VideoFunction = Callable[[Source], VideoResult]
VideoGenerator = Callable[[Source], Iterator[Any]]  # yields chunks, and a VideoResult at the end

# Yields each of some videos with its result, each once, in any order. Closing the iterator stops
# its workers; after a signal it raises Interrupted.
VideoResults = Generator[tuple[Source, VideoResult], None, None]
Pool = Callable[[Sequence[Source]], VideoResults]


def process_videos(
    sources: Sequence[Source], function: VideoFunction, workers: int | None = None
) -> VideoResults:
    """Yields each video with its result, in the order in which they are finished.

    Args:
        function: can be pickled; runs in a worker with OpenCV's threads off.
        workers: processes; None: one per core.

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: workers cannot be started.
    """
    events = stream_videos(
        sources, partial(_yield_result, function=function), workers, CHECK_SIGNALS_EVERY
    )
    with closing(events):
        for event in events:
            if event is not None and isinstance(event[1], VideoResult):
                yield event


def stream_videos(
    sources: Sequence[Source], generator: VideoGenerator, workers: int | None, patience: float
) -> Generator[tuple[Source, Any] | None, None, None]:
    """Yields each video with the chunks that a worker makes of it, as they arrive.

    A worker that is ahead of its reader waits, so few chunks are in memory at once.

    Args:
        generator: can be pickled; yields chunks and then a :class:`VideoResult`, in a worker with
            OpenCV's threads off. An error becomes a result with its reason.
        workers: processes; None: one per core.
        patience: seconds after which None is yielded if nothing has arrived.

    Yields:
        (video, chunk), (video, :class:`Restarted`) and, once for each video, (video, result).

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: workers cannot be started.
    """
    count = min(workers or cores(), len(sources))
    left = list(reversed(sources))
    pool: list[_Worker] = []
    crashed: set[str] = set()
    with stop_requests() as stop:
        try:
            pool += [_Worker(generator) for _ in range(count)]
            for worker in pool:
                worker.give(left)
            while busy := {worker.pipe: worker for worker in pool if worker.source is not None}:
                ready = wait(list(busy), patience)
                for pipe in ready:
                    worker = busy[pipe]  # type: ignore[index]
                    source, chunk = worker.take()
                    if worker.dead:
                        pool.remove(worker)
                        worker = _Worker(generator)
                        pool.append(worker)
                        if source.id not in crashed:  # it may have been killed for memory
                            crashed.add(source.id)
                            left.append(source)
                            chunk = Restarted()
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


class _Worker:
    """A process that gets one video at a time, and the parent's end of the pipe to it."""

    def __init__(self, generator: VideoGenerator) -> None:
        # spawn: a fork would copy the locks of whatever threads the parent runs.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, generator), daemon=True, name="vidssl-video"
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
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            chunk = VideoResult(reason=f"the process that worked on it crashed ({how})")
        if isinstance(chunk, VideoResult):
            self.source = None
        return source, chunk

    def end(self) -> None:
        """Kills the process; only unfinished videos are lost."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, generator: VideoGenerator) -> None:
    """Runs in the worker: processes one video after another until the parent closes the pipe."""
    end_with_parent()
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"  # in case the function loads PyTorch
    while True:
        try:
            source = pipe.recv()
        except EOFError:
            return
        for chunk in _chunks(generator, source):
            pipe.send(chunk)


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
    if isinstance(error, VidsslError):
        return VideoResult(reason=str(error))
    text = " ".join(str(error).split())
    return VideoResult(reason=f"{type(error).__name__}: {text}"[:300])


def _yield_result(source: Source, function: VideoFunction) -> Iterator[VideoResult]:
    yield function(source)
