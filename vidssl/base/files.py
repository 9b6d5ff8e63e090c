"""Writes files atomically: whole or not at all. Names the file in errors of the system.

A full disk, a limit of the process or a failing disk becomes one clear sentence with the path.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError


class NotRegular(VidsslError):
    """A pipe, socket, device or folder, where a file is read. The sentence names it."""


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading; never waits for a pipe, never reads a device.

    Raises:
        NotRegular: the path is no regular file.
        OSError: as `open`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # A socket or a device that is not there; a link that leads in a circle.
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise NotRegular(f"{path} is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """Returns the bytes of a file of a work folder.

    Raises:
        NotRegular: the path is no regular file; the sentence says what to do.
        OSError: as `open`.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except NotRegular as error:
        raise NotRegular(f"{error}: delete it, and type the same command again") from error


def open_to_append(path: Path) -> int:
    """Opens a file to read it and to append to it, and makes it where it is missing.

    Returns:
        Its descriptor.

    Raises:
        NotRegular: the path is a pipe, a socket or a device.
        OSError: as `os.open`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{path} is no regular file: delete it, and type the same command again")
    return descriptor


def file_digest(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file's bytes; errors as :func:`open_regular`."""
    with system_errors_name(path), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Writes a folder's entries to disk, so that renames in it survive a power failure."""
    with system_errors_name(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename_to_free(folder: Path, names: Iterable[Path]) -> Path:
    """Renames a folder to the first of some paths that is free; returns it.

    Whether one is free is known only when renaming: what another machine has renamed may not be
    listed here yet.
    """
    for name in names:
        try:
            os.rename(folder, name)
            return name
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise FileExistsError(errno.EEXIST, "no name is free", str(folder))


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file atomically: under a temporary name, fsync, rename.

    Raises:
        VidsslError: the disk is full, or as :func:`system_errors_name`.
    """
    # A random name: process numbers repeat on other machines, and in all containers.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with system_errors_name(path):
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    atomic_write(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


FULL = (errno.ENOSPC, errno.EDQUOT)
# What the system says in few words, and never with a file name where a descriptor was used.
SENTENCES = {
    errno.EFBIG: "{where} could not be written: a file may not become so large here (ulimit -f, or "
    "the file system's own limit)",
    errno.EMFILE: "{where} could not be opened: this process has too many files open; allow more "
    "with ulimit -n",
    errno.ENFILE: "{where} could not be opened: this machine has too many files open",
    errno.EIO: "{where} could not be read or written: the disk or its connection fails "
    "(input/output error)",
    errno.EROFS: "{where} could not be written: the file system is read-only",
    errno.ENAMETOOLONG: "{where} could not be opened: its path is too long",
}
LONGEST_SHOWN = 200  # characters of a path in a sentence


def system_sentence(error: OSError, path: Path | str | None = None) -> str | None:
    """Returns one sentence for an error of the operating system, with the path; None for others.

    Args:
        path: where it happened; None: the file that the error itself names, if it does.
    """
    named = path
    if named is None and isinstance(error.filename, str | bytes | os.PathLike):
        named = os.fsdecode(error.filename)
    where = "a file" if named is None else _shortened(str(named))
    if error.errno in FULL:
        return (
            f"the disk is full: {where} could not be written; "
            "free some space and run the same command again, it goes on where it stopped"
        )
    if error.errno in SENTENCES:
        return SENTENCES[error.errno].format(where=where)
    if named is None or error.errno is None:
        return None
    return f"{where}: {error.strerror}"


def _shortened(path: str) -> str:
    """Returns a path, without its middle where it is very long."""
    half = LONGEST_SHOWN // 2
    return path if len(path) <= LONGEST_SHOWN else f"{path[:half]}…{path[-half:]}"


@contextmanager
def system_errors_name(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into one sentence that names `path`.

    Errors of a descriptor (a full disk, a quota, a limit, a failing disk) come without a file name.
    Those that have one stay as they are, so that callers can tell a file that is not there.

    Raises:
        VidsslError: the disk or quota is full, or another error without a file name.
    """
    try:
        yield
    except OSError as error:
        raise named_error(error, path) from error


def named_error(error: OSError, path: Path) -> Exception:
    """Returns what :func:`system_errors_name` raises for an error."""
    if error.filename is not None and error.errno not in SENTENCES and error.errno not in FULL:
        return error
    sentence = system_sentence(error, path)
    return error if sentence is None else VidsslError(sentence)
