"""Writes files atomically: whole or not at all. A full disk becomes one clear sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError


def file_digest(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Writes a folder's entries to disk, so that renames in it survive a power failure."""
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
        VidsslError: the disk is full.
    """
    # A random name: process numbers repeat on other machines, and in all containers.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with full_disk_is_one_sentence(path), aside.open("wb") as file:
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


@contextmanager
def full_disk_is_one_sentence(path: Path) -> Iterator[None]:
    """Turns the error of a full disk or quota into one sentence, while `path` is written.

    Raises:
        VidsslError: the disk or quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise VidsslError(
                f"the disk is full: {path} could not be written; "
                "free some space and run the same command again, it goes on where it stopped"
            ) from error
        raise
