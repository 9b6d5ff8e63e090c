"""Locks that processes hold on files, on one machine or many."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vidssl.base.errors import VidsslError

LOOK_OF_OTHERS = 0.3  # seconds for which a look at a lock (is_locked) may be in the way


@contextmanager
def file_lock(
    path: Path,
    refusal: str | None = None,
    shared: bool = False,
    before_waiting: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds a lock on the file `path`; with `refusal`, raises it instead of waiting.

    Args:
        shared: with others that share it; else alone.
        before_waiting: is called where another process holds it.

    Raises:
        VidsslError: another process holds it, or the file system has no locks.
    """
    while True:
        with path.open("a+") as file:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            if not _flock(file, path, kind | fcntl.LOCK_NB):
                if refusal is None:
                    if before_waiting is not None:
                        before_waiting()
                    _flock(file, path, kind)
                elif not _flock_soon(file, path, kind):
                    raise VidsslError(refusal)
            if _is_still_there(file, path):
                yield
                return
        # Its last holder deleted it meanwhile: a lock on that file holds off nobody.


def _flock(file: IO[str], path: Path, kind: int) -> bool:
    """Returns whether it has the lock now."""
    try:
        fcntl.flock(file, kind)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise VidsslError(
            f"the file system of {path.parent} has no file locks, which keep processes from "
            "writing over each other: put the workspace elsewhere, or mount it with locks"
        ) from error


def _flock_soon(file: IO[str], path: Path, kind: int) -> bool:
    """Returns whether it has the lock before anyone who only looks would have let it go."""
    end = time.monotonic() + LOOK_OF_OTHERS
    while not (has := _flock(file, path, kind | fcntl.LOCK_NB)) and time.monotonic() < end:
        time.sleep(LOOK_OF_OTHERS / 10)
    return has


def is_locked(path: Path) -> bool | None:
    """Whether a living process, on whatever machine, holds a :func:`file_lock` on the file `path`.

    A process that is killed lets go of its locks at once; those of a machine that is lost hold
    until the server of the file system takes them back.

    Returns:
        None where it cannot be told: no file locks, or no right to look.
    """
    writable = os.access(path, os.W_OK)  # network file systems lock alone only what may be written
    try:
        with path.open("r+" if writable else "r") as file:
            return not _flock(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, VidsslError):
        return None


def _is_still_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
