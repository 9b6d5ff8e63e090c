"""Ctrl-C and SIGTERM: a quick end before there is work, and in long work a question.

Long work asks it at safe places. Imports next to nothing: it is the first thing a command imports.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vidssl.base.errors import Interrupted

# ── before there is work ─────────────────────────────────────────────────────────────────────


def leave_at_once() -> None:
    """Lets Ctrl-C and SIGTERM end the process with one line, until :func:`work_begins`.

    For the time of imports: an exception would show as a traceback from deep within them, and
    some libraries turn it into another one. There is nothing yet to save or to clean up.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def work_begins() -> None:
    """Lets Ctrl-C and SIGTERM end work by an exception, so that it can clean up after itself."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, _stop)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"vidssl: interrupted\n")
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped; the same command goes on from what is finished", number)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM from processes that are started meanwhile; their parent decides.

    A terminal sends Ctrl-C to all processes of a command, and one that is still importing would
    show a traceback. Children inherit which signals are blocked; to this process they come late.
    """
    from multiprocessing import resource_tracker  # here, since this module must import quickly

    resource_tracker.ensure_running()  # it starts with the first child, and unblocks signals
    with deaf():
        yield


@contextmanager
def deaf() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait, and come late."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heed_parent() -> None:
    """Lets SIGTERM end work by an exception in a process that was started deaf.

    So a parent asks for an end, which may have come too early and waited. Ctrl-C stays unheard: to
    long work it would be the first signal, and the parent's the second, which cuts saving short.
    """
    signal.signal(signal.SIGTERM, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def end_with_parent() -> None:
    """Lets this process end at once when the one that started it dies, however it dies."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    from multiprocessing import parent_process  # here, since this module must import quickly

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ── while there is ───────────────────────────────────────────────────────────────────────────


class StopRequest:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a :class:`StopRequest`; a second one acts as usual.

    Outside the main thread signals cannot be caught, and nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
