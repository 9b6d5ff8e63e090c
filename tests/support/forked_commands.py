"""Runs commands of vidssl in forks of this process, with limits; so one costs milliseconds.

This process imports what commands need, once, and runs none of them itself: a fork has only the
thread that forked. A fork runs one command as `python -m vidssl` would, and ends.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import os
import pkgutil
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import torch
import typer
from patience import PATIENCE

import vidssl
import vidssl.__main__
import vidssl.cli
from vidssl.extraction import process_pool

MEMORY = 4 << 30  # bytes that a command may map beyond what is mapped already
CPU_SECONDS = 60
patience = PATIENCE


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; the negative number of the signal that ended it.
        hung: it did not end, and was killed.
    """

    code: int
    out: str
    err: str
    hung: bool = False


def run_forked(
    words: Sequence[object], first: Callable[[], object] = lambda: None, wall: float | None = None
) -> Ended:
    """Runs `vidssl WORDS` in a fork.

    Args:
        first: is called in the fork before the command, such as to let something fail.
        wall: seconds after which it hangs; None: :data:`patience`.
    """
    pipes = [_wide_pipe() for _ in ("out", "err")]
    child = os.fork()
    if not child:
        _run([end for _, end in pipes], [str(word) for word in words], first)
    for _, end in pipes:
        os.close(end)
    hung = not _ends_within(child, wall or patience)
    if hung:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for begin, _ in pipes:
        with os.fdopen(begin, "rb") as file:
            said.append((file.read() or b"").decode(errors="replace"))
    return Ended(code, said[0], said[1], hung or code == -signal.SIGXCPU)


def _wide_pipe() -> tuple[int, int]:
    """Returns a pipe that takes all that a command says, so that nobody need read meanwhile."""
    begin, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(begin, False)
    return begin, end


def _ends_within(child: int, wall: float) -> bool:
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], wall)[0])
    finally:
        os.close(descriptor)


def _run(texts: Sequence[int], words: list[str], first: Callable[[], object]) -> None:
    code: Any = 1
    try:
        for number, text in enumerate(texts, 1):
            os.dup2(text, number)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2)
        )
        _limit()
        first()
        sys.argv = ["vidssl", *words]
        vidssl.__main__.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _limit() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Worker processes would each import all again; here videos are processed by the fork itself.
    process_pool.stream_videos = in_this_process


def in_this_process(
    sources: Sequence[Any], generator: Callable[[Any], Iterator[Any]], *others: object
) -> Iterator[tuple[Any, Any]]:
    """Stands in for `stream_videos`: yields the same, without a worker process."""
    with process_pool.stop_requests() as stop:
        for source in sources:
            with closing(process_pool._chunks(generator, source)) as chunks:
                for chunk in chunks:
                    yield source, chunk
            process_pool.raise_if_stopped(stop)


def at_call(
    owner: Any, name: str, count: int, act: Callable[[], object], after: bool = False
) -> None:
    """Lets something happen at the `count`-th call of a function, before it or after it."""
    original, calls = getattr(owner, name), []

    def acting(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == count and not after:
            act()
        found = original(*arguments, **options)
        if len(calls) == count and after:
            act()
        return found

    setattr(owner, name, acting)


def end_by(number: int) -> Callable[[], None]:
    """Returns a function that sends this process a signal."""
    return partial(_send, number)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def all_imported() -> Iterator[None]:
    """Imports what any command may import, and lets the collector leave it alone, so that forks
    share its pages."""
    others = ["av.subtitles.stream", "numpy.ctypeslib", "numpy.ma", "zoneinfo", "typer._adapters"]
    for module in pkgutil.walk_packages(vidssl.__path__, "vidssl."):
        others.append(module.name)
    for name in others:
        with suppress(ImportError):
            importlib.import_module(name)
    vidssl.cli.app = typer.main.get_command(vidssl.cli.app)  # else each command builds it anew
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
