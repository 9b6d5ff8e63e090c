"""Work on many videos at once: one process and one core per video.

What a worker makes of a video comes back to the parent, which alone writes: all at once
(:func:`work_on_videos`), or in parts while it is still at work (:func:`stream_videos`). A video
that fails is told apart from a worker that dies over it (a decoder can crash), which is tried once
more: both cost that one video.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.resources import cores
from vidssl.base.signals import (
    StopRequest,
    deaf_children,
    end_with_parent,
    stop_requests,
)
from vidssl.dataset.video import Source
from vidssl.shards import VideoRecord

LOOK_UP_EVERY = 0.2  # seconds between two looks whether a signal came


@dataclass(frozen=True)
class Product:
    """What became of one video: its record and the blobs of each view, or why there are none."""

    record: VideoRecord | None = None
    blobs: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    reason: str = ""


class BeganAgain:
    """Said of a video whose worker died: what came of it so far is void, and it all comes anew."""


Work = Callable[[Source], Product]
Stream = Callable[[Source], Iterator[Any]]  # parts of what a video gives, and a Product at the end

# Gives each of some videos with what became of it, each once, in any order. Closing the iterator
# ends whatever it started; a signal ends it with Interrupted after what was given before.
Pool = Callable[[Sequence[Source]], Iterator[tuple[Source, Product]]]


def work_on_videos(
    sources: Sequence[Source], work: Work, workers: int | None = None
) -> Iterator[tuple[Source, Product]]:
    """Returns each video with what became of it, in the order in which they get done.

    Args:
        work: a function that can be pickled; runs in a worker with OpenCV's threads off.
        workers: processes; None: one per core.

    Raises:
        Interrupted: SIGINT or SIGTERM came; nothing is lost that was given before.
        VidsslError: workers cannot be started.
    """
    events = stream_videos(sources, partial(_whole, work=work), workers, LOOK_UP_EVERY)
    with closing(events):
        for event in events:
            if event is not None and isinstance(event[1], Product):
                yield event


def stream_videos(
    sources: Sequence[Source], stream: Stream, workers: int | None, patience: float
) -> Iterator[tuple[Source, Any] | None]:
    """Returns each video with the parts that a worker makes of it, as they come.

    A worker that is ahead of its reader waits, so little is ever on its way.

    Args:
        stream: a function that can be pickled; gives parts and then a :class:`Product`, in a
            worker with OpenCV's threads off. A failure gives a product with its reason.
        workers: processes; None: one per core.
        patience: seconds after which None is given when nothing has come.

    Returns:
        (video, part), (video, :class:`BeganAgain`) and, once for each video, (video, product).

    Raises:
        Interrupted: SIGINT or SIGTERM came; nothing is lost that was given before.
        VidsslError: workers cannot be started.
    """
    count = min(workers or cores(), len(sources))
    left = list(reversed(sources))
    pool: list[_Worker] = []
    crashed: set[str] = set()
    with stop_requests() as stop:
        try:
            pool += [_Worker(stream) for _ in range(count)]
            for worker in pool:
                worker.give(left)
            while busy := {worker.pipe: worker for worker in pool if worker.source is not None}:
                ready = wait(list(busy), patience)
                for pipe in ready:
                    worker = busy[pipe]  # type: ignore[index]
                    source, part = worker.take()
                    if worker.dead:
                        pool.remove(worker)
                        worker = _Worker(stream)
                        pool.append(worker)
                        if source.id not in crashed:  # it may have been killed for memory
                            crashed.add(source.id)
                            left.append(source)
                            part = BeganAgain()
                    if worker.source is None:
                        worker.give(left)
                    yield source, part
                if not ready:
                    yield None
                end_if_asked(stop)
        finally:
            for worker in pool:
                worker.end()


def end_if_asked(stop: StopRequest) -> None:
    """Raises Interrupted where a signal came."""
    if stop.signal_number is not None:
        raise Interrupted(
            "stopped; finished videos are kept: run the same command again to go on",
            stop.signal_number,
        )


class _Worker:
    """A process that is given one video at a time, and the parent's end of the pipe to it."""

    def __init__(self, stream: Stream) -> None:
        # spawn: a fork would copy the locks of whatever threads the parent runs.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, stream), daemon=True, name="vidssl-video"
        )
        with deaf_children():
            self.process.start()
        theirs.close()
        self.source: Source | None = None
        self.dead = False
        self._started = False

    def give(self, left: list[Source]) -> None:
        """Sends the next video, if there is one."""
        self.source = left.pop() if left else None
        if self.source is not None:
            with suppress(OSError):  # it died in between; take() finds out
                self.pipe.send(self.source)

    def take(self) -> tuple[Source, Any]:
        """Receives a part of the video or its end, or finds that the worker died over it."""
        source = self.source
        assert source is not None
        try:
            part = self.pipe.recv()
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
            part = Product(reason=f"the process that worked on it crashed ({how})")
        if isinstance(part, Product):
            self.source = None
        return source, part

    def end(self) -> None:
        """Stops the process; it holds nothing worth saving."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, stream: Stream) -> None:
    """A worker's life: one video after another, until the parent hangs up or dies."""
    end_with_parent()
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"  # should the work load PyTorch
    while True:
        try:
            source = pipe.recv()
        except EOFError:
            return
        for part in _parts(stream, source):
            pipe.send(part)


def _parts(stream: Stream, source: Source) -> Iterator[Any]:
    try:
        yield from stream(source)
    except Exception as error:
        yield _failed(error)


def attempt(work: Work, source: Source, but: tuple[type[Exception], ...] = ()) -> Product:
    """Returns what becomes of one video: whatever is wrong with it becomes the reason.

    Args:
        but: errors to raise instead, which are not the video's.
    """
    try:
        return work(source)
    except but:
        raise
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Product:
    # Whatever a strange file brings about, it must not end a run of many hours.
    if isinstance(error, VidsslError):
        return Product(reason=str(error))
    text = " ".join(str(error).split())
    return Product(reason=f"{type(error).__name__}: {text}"[:300])


def _whole(source: Source, work: Work) -> Iterator[Product]:
    yield work(source)
