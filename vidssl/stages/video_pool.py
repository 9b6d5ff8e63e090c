"""Work on many videos at once: one process and one core per video.

What a worker makes of a video comes back to the parent, which alone writes. A video that fails is
told apart from a worker that dies over it (a decoder can crash), which is tried once more: both
cost that one video.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import cv2

from vidssl.errors import Interrupted, VidsslError
from vidssl.interrupts import StopRequest, deaf_children, stop_requests
from vidssl.machine import cores
from vidssl.shards import VideoRecord
from vidssl.video import Source

LOOK_UP_EVERY = 0.2  # seconds between two looks whether a signal came


@dataclass(frozen=True)
class Product:
    """What became of one video: its record and the blobs of each view, or why there are none."""

    record: VideoRecord | None = None
    blobs: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    reason: str = ""


Work = Callable[[Source], Product]

# Gives each of some videos with what became of it, each once, in any order. Closing the iterator
# ends whatever it started; a signal ends it with Interrupted after what was given before.
Pool = Callable[[Sequence[Source]], Iterator[tuple[Source, Product]]]


class UnusableVideo(VidsslError):
    """A video that cannot be used; the text is the reason."""


def work_on_videos(
    sources: Sequence[Source], work: Work, workers: int | None = None
) -> Iterator[tuple[Source, Product]]:
    """Gives each video with what became of it, in the order in which they get done.

    Args:
        work: a function that can be pickled; runs in a worker with OpenCV's threads off.
        workers: processes; None: one per core.

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
            pool += [_Worker(work) for _ in range(count)]
            for worker in pool:
                worker.give(left)
            while busy := {worker.pipe: worker for worker in pool if worker.source is not None}:
                for pipe in wait(list(busy), LOOK_UP_EVERY):
                    worker = busy[pipe]  # type: ignore[index]
                    source, product = worker.take()
                    if worker.dead:
                        pool.remove(worker)
                        worker = _Worker(work)
                        pool.append(worker)
                        if source.id not in crashed:  # it may have been killed for memory
                            crashed.add(source.id)
                            left.append(source)
                            worker.give(left)
                            continue
                    worker.give(left)
                    yield source, product
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

    def __init__(self, work: Work) -> None:
        # spawn: a fork would copy the locks of whatever threads the parent runs.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, work), daemon=True, name="vidssl-video"
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

    def take(self) -> tuple[Source, Product]:
        """Receives what became of the video, or finds that the worker died over it."""
        source = self.source
        assert source is not None
        try:
            product: Product = self.pipe.recv()
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
            product = Product(reason=f"the process that worked on it crashed ({how})")
        return source, product

    def end(self) -> None:
        """Stops the process; it holds nothing worth saving."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: one video after another, until the parent hangs up or dies."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    cv2.setNumThreads(0)
    while True:
        try:
            source = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(work, source))


def attempt(work: Work, source: Source, but: tuple[type[Exception], ...] = ()) -> Product:
    """Gives what becomes of one video: whatever is wrong with it becomes the reason.

    Args:
        but: errors to raise instead, which are not the video's.
    """
    try:
        return work(source)
    except but:
        raise
    except VidsslError as error:
        return Product(reason=str(error))
    except Exception as error:
        # Whatever a strange file brings about, it must not end a run of many hours.
        text = " ".join(str(error).split())
        return Product(reason=f"{type(error).__name__}: {text}"[:300])


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
