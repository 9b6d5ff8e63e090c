"""Handles Ctrl-C, SIGTERM and SIGUSR1: a quick end before work starts, a request to stop later.

Long work looks for the request where it can stop safely. SIGUSR1 is what Slurm can be told to send
some time before a job's end (`--signal=USR1@60`); SIGTERM follows, and SIGKILL after that. This
module imports little, since a command imports it first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vidssl.base.errors import Interrupted

EARLY = signal.SIGUSR1  # a warning of the scheduler: the end comes later
STOPPING = (signal.SIGINT, signal.SIGTERM, EARLY)

# ── before work starts ───────────────────────────────────────────────────────────────────────


def leave_at_once() -> None:
    """Lets a signal to stop end the process with one line, until :func:`work_begins`.

    It is for the time of imports: an exception would show a traceback from inside them, and some
    libraries turn it into another one. There is nothing to save or clean up yet.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def work_begins() -> None:
    """Lets a signal to stop raise an exception, so that work can clean up after itself."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, EARLY):
        if signal.getsignal(number) is _leave:
            signal.signal(number, _stop)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"vidssl: interrupted\n")
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped; the same command goes on from what is finished", number)


@contextmanager
def signals_blocked_in_children() -> Iterator[None]:
    """Blocks signals to stop in processes that are started within it; their parent decides.

    A terminal sends Ctrl-C to all processes of a command, and a scheduler its signals to all of a
    job; one that is still importing would show a traceback. Children inherit blocked signals. This
    process gets its signals afterwards.
    """
    from multiprocessing import resource_tracker  # here, since this module must import quickly

    resource_tracker.ensure_running()  # it starts with the first child, and unblocks signals
    with signals_blocked():
        yield


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks signals to stop; they arrive afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_sigterm() -> None:
    """Lets SIGTERM raise an exception in a process that was started with blocked signals.

    A parent asks for an end by SIGTERM; one that came earlier takes effect now. Ctrl-C stays
    blocked: long work would take it for the first signal, and the parent's for the second, which
    interrupts saving.
    """
    signal.signal(signal.SIGTERM, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def end_with_parent() -> None:
    """Lets this process end at once when its parent dies in any way."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    from multiprocessing import parent_process  # here, since this module must import quickly

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ── during work ──────────────────────────────────────────────────────────────────────────────


class StopRequest:
    """Whether a signal asked the process to stop, and which one; it is false until then."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a :class:`StopRequest`; a second one acts as usual.

    SIGUSR1 is a request as well, and does not count as the first: the SIGTERM that a scheduler
    sends after it must not interrupt saving.

    In other threads than the main one signals cannot be caught, and nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for each, handler in before.items():
            if number != EARLY and each != EARLY:
                signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
