"""Runs jobs in several processes, each job as soon as the results that it needs are there.

Each process does one job after another and uses one core. Progress, results and errors are sent to
the process that the user started. A signal goes to that process alone: it asks the others to save,
and waits for them.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.progress import Progress
from vidssl.base.relayed_progress import ProgressCall, ProgressReceiver, ProgressSender
from vidssl.base.signals import (
    StopRequest,
    end_with_parent,
    signals_blocked,
    signals_blocked_in_children,
    stop_requests,
    unblock_sigterm,
)

LOOK_UP_EVERY = 0.2  # seconds between two looks whether a signal came
STOPPING = "stopping: saving what is done …"  # it may take seconds


@dataclass(frozen=True)
class Job:
    """A function to run in some process, after the jobs that it depends on.

    Attributes:
        function: takes a progress and the results of the jobs in `after`; with several
            processes, the function and its result must be picklable.
        after: names of the jobs that must end before it begins.
    """

    name: str
    function: Callable[..., Any]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """The result of a job, and the seconds it took."""

    result: Any
    seconds: float


def run_jobs(jobs: Sequence[Job], processes: int, progress: Progress) -> dict[str, Done]:
    """Runs all jobs; of those that can begin, the first of the list begins first.

    Args:
        jobs: each of them later in the list than those in its `after`.
        processes: how many jobs run at a time; with 1 all run in this process, in the list's order.

    Raises:
        Interrupted: a signal came; all jobs have saved what they save at a signal.
        VidsslError: a job raised it, or the process that did it died. The others have saved.
        RuntimeError: a job raised something else.
    """
    if processes == 1:
        return _one_after_the_other(jobs, progress)
    done: dict[str, Done] = {}
    waiting = list(jobs)
    with stop_requests() as stop, _pool(progress) as pool:
        while len(done) < len(jobs):
            while (job := _ready(waiting, done)) is not None:
                worker = _idle(pool, processes, progress)
                if worker is None:
                    break
                waiting.remove(job)
                worker.send(job, [done[name].result for name in job.after])
            busy = {worker.pipe: worker for worker in pool if worker.job is not None}
            for pipe in wait(list(busy), LOOK_UP_EVERY):
                done |= busy[pipe].receive()  # type: ignore[index]
            if stop:
                raise _interrupted(stop)
    return {job.name: done[job.name] for job in jobs}


def _one_after_the_other(jobs: Sequence[Job], progress: Progress) -> dict[str, Done]:
    done: dict[str, Done] = {}
    for job in jobs:
        begin = time.monotonic()
        result = job.function(progress, *(done[name].result for name in job.after))
        done[job.name] = Done(result, time.monotonic() - begin)
    return done


def _ready(waiting: Sequence[Job], done: Mapping[str, Done]) -> Job | None:
    """Returns the first job that can begin."""
    return next((job for job in waiting if done.keys() >= set(job.after)), None)


def _idle(pool: list[_Worker], most: int, progress: Progress) -> _Worker | None:
    """Returns an idle process, or a new one while there are fewer than `most`, or None."""
    found = next((worker for worker in pool if worker.job is None), None)
    if found is None and len(pool) < most:
        found = _Worker(progress)
        pool.append(found)
    return found


def _interrupted(stop: StopRequest) -> Interrupted:
    return Interrupted(
        "interrupted; all is saved, the same command goes on from here", stop.signal_number or 15
    )


@contextmanager
def _pool(progress: Progress) -> Iterator[list[_Worker]]:
    """Yields a list for workers. At the end they are asked to save, and are waited for."""
    pool: list[_Worker] = []
    try:
        yield pool
    finally:
        try:
            if any(worker.job is not None for worker in pool):
                progress.say(STOPPING)
            for worker in pool:
                worker.process.terminate()
            for worker in pool:
                worker.wait()
        finally:  # a second signal cuts the waiting short
            for worker in pool:
                worker.end()


class _Worker:
    """A process that is given one job at a time, and this process's end of the pipe to it."""

    def __init__(self, progress: Progress) -> None:
        # spawn: a fork would copy the locks of whatever threads this process runs.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True, name="vidssl")
        with signals_blocked_in_children():
            self.process.start()
        theirs.close()
        self.job: Job | None = None
        self._receiver = ProgressReceiver(progress)

    def send(self, job: Job, earlier: list[Any]) -> None:
        """Sends a job, with the results it needs."""
        self.job = job
        with suppress(OSError):  # it died in between; receive() finds out
            self.pipe.send((job.function, earlier))

    def receive(self) -> dict[str, Done]:
        """Receives one thing: progress, which is shown; the job's result; or a failure, raised."""
        assert self.job is not None
        name = self.job.name
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            raise VidsslError(self._how_it_ended(name)) from None
        if isinstance(message, ProgressCall):
            self._receiver.repeat(message)
            return {}
        self.job = None
        if isinstance(message, _Failed):
            raise message.error()
        return {name: message}

    def _how_it_ended(self, name: str) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process that did “{name}” has ended ({how}); the same command goes on"

    def wait(self) -> None:
        """Waits until the process has ended, and shows its last progress."""
        with suppress(EOFError, OSError):  # it has ended
            while True:
                message = self.pipe.recv()
                if isinstance(message, ProgressCall):
                    self._receiver.repeat(message)

    def end(self) -> None:
        """Ends the process, if it is still there."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._receiver.close()


# ── in the other process ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Failed:
    """The error of a job as text, since not every exception can be pickled.

    Attributes:
        exit_code: of a VidsslError; None: it was another error, and the text is a traceback.
    """

    text: str
    exit_code: int | None = None

    def error(self) -> Exception:
        if self.exit_code is None:
            return RuntimeError(self.text)
        error = VidsslError(self.text)
        error.exit_code = self.exit_code
        return error


def _serve(pipe: Connection) -> None:
    """Runs one job after another in a worker, until it or its parent is asked to end."""
    end_with_parent()
    unblock_sigterm()
    with suppress(EOFError, Interrupted):
        while True:
            pipe.poll(None)
            with signals_blocked():  # receiving imports what the job needs
                function, earlier = pipe.recv()
            pipe.send(_attempt(function, earlier, ProgressSender(pipe.send)))


def _attempt(
    function: Callable[..., Any], earlier: list[Any], progress: Progress
) -> Done | _Failed:
    begin = time.monotonic()
    try:
        result = function(progress, *earlier)
    except Interrupted:
        raise  # the parent asked for it
    except VidsslError as error:
        return _Failed(str(error), error.exit_code)
    except Exception:
        return _Failed(traceback.format_exc())
    return Done(result, time.monotonic() - begin)
