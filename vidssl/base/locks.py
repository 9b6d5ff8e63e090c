"""File locks between processes, on one machine or on several."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vidssl.base.errors import VidsslError

LOOK_OF_OTHERS = 0.3  # seconds to wait for processes that only look at a lock (is_locked)


@contextmanager
def file_lock(
    path: Path,
    refusal: str | None = None,
    shared: bool = False,
    before_waiting: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds a lock on the file `path`, and waits for it if another process holds it.

    Args:
        refusal: raise this sentence instead of waiting.
        shared: hold it together with others that share it; else alone.
        before_waiting: is called if another process holds the lock.

    Raises:
        VidsslError: another process holds it (with `refusal`), or the file system has no locks.
    """
    while True:
        with _open(path, os.O_RDWR | os.O_CREAT) as file:
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
        # The last holder has deleted the file meanwhile: a lock on it would exclude nobody.


def _open(path: Path, flags: int) -> IO[bytes]:
    """Opens a lock's file.

    Raises:
        VidsslError: it is a link, or no regular file: in a workspace of others it could be any.
        OSError: as `open`.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise VidsslError(f"{path} is no lock of vidssl, but a link: remove it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VidsslError(f"{path} is no lock of vidssl, but a pipe or a device: remove it")
    return os.fdopen(descriptor, "rb+" if flags & os.O_RDWR else "rb", buffering=0)


def _flock(file: IO[bytes], path: Path, kind: int) -> bool:
    """Takes the lock, and returns whether it succeeded."""
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


def _flock_soon(file: IO[bytes], path: Path, kind: int) -> bool:
    """Tries for 0.3 seconds to take the lock, since another process may only look at it."""
    end = time.monotonic() + LOOK_OF_OTHERS
    while not (has := _flock(file, path, kind | fcntl.LOCK_NB)) and time.monotonic() < end:
        time.sleep(LOOK_OF_OTHERS / 10)
    return has


def is_locked(path: Path) -> bool | None:
    """Whether a living process, on any machine, holds a :func:`file_lock` on the file `path`.

    Locks of a killed process are released at once; those of a lost machine remain until the file
    server releases them.

    Returns:
        None if it is unknown: no file locks, or no permission.
    """
    writable = os.access(path, os.W_OK)  # network file systems lock exclusively only writable files
    try:
        with _open(path, os.O_RDWR if writable else os.O_RDONLY) as file:
            return not _flock(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, VidsslError):
        return None


def _is_still_there(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
