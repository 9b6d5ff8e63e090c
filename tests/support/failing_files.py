"""Lets something happen at the N-th time that this process opens, writes or renames in a folder.

It is for a fork that runs one command: what it installs cannot be taken away again. Python's own
audit events tell of opening, renaming and making folders; `os.write`, `os.fsync` and HDF5's writes
have none, and are wrapped.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate")


class Counter:
    """A number that forks share with the process that made it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def add(self) -> int:
        """Adds one; returns how many there were."""
        before = self.value
        self._memory[:] = (before + 1).to_bytes(8, "little")
        return before

    @property
    def value(self) -> int:
        """How many there are."""
        return int.from_bytes(self._memory[:], "little")


def at_event(root: Path, happens: Callable[[int, str], object], reading: bool = False) -> None:
    """Calls a function at every event that concerns a path below a folder.

    Args:
        happens: gets the number of the event, from 0, and the path; may raise or end the process.
        reading: events are files that are opened, in whatever way; else all that changes the disk.
    """
    counter, within = Counter(), []

    def note(path: Any) -> None:
        text = _path_of(path)
        if within or text is None or not text.startswith(f"{root}{os.sep}"):
            return
        within.append(True)  # what happens may itself open and remove files
        try:
            happens(counter.add(), text)
        finally:
            within.pop()

    def hook(event: str, given: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and (given[2] or 0) & WRITING)
        if event == "open" if reading else changes:
            note(given[0])

    sys.addaudithook(hook)
    if not reading:
        for owner, name in ((os, "write"), (os, "fsync")):
            setattr(owner, name, _noted(getattr(owner, name), note, lambda given: given[0]))
        of_dataset = partial(_file_of_group)
        h5py.Group.create_dataset = _noted(h5py.Group.create_dataset, note, of_dataset)
    h5py.File.__init__ = _noted_file(h5py.File.__init__, note, reading)


def _noted(function: Any, note: Any, path_of: Any) -> Any:
    def noted(*given: Any, **options: Any) -> Any:
        note(path_of(given))
        return function(*given, **options)

    return noted


def _noted_file(open_file: Any, note: Any, reading: bool) -> Any:
    def noted(self: Any, name: Any, mode: str = "r", *given: Any, **options: Any) -> None:
        if reading or mode != "r":
            note(name)
        open_file(self, name, mode, *given, **options)

    return noted


def _file_of_group(given: tuple[Any, ...]) -> str:
    return str(given[0].file.filename)


def _path_of(path: Any) -> str | None:
    if isinstance(path, int):
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{path}")
        return None
    if isinstance(path, bytes):
        return os.fsdecode(path)
    return os.path.abspath(path) if isinstance(path, str | os.PathLike) else None


def fail(number: int, code: int, lasting: bool, root: Path) -> None:
    """Lets the `number`-th change of the disk below a folder fail, and those after it if `lasting`.

    Args:
        code: such as `errno.ENOSPC`.
    """

    def happens(count: int, path: str) -> None:
        if count == number or (lasting and count > number):
            raise OSError(code, os.strerror(code), path)

    at_event(root, happens)


def count_events(counter: Counter, root: Path, reading: bool = False) -> None:
    """Counts the events of a command, for the process that forked it."""
    at_event(root, lambda count, path: counter.add(), reading)


def act_at(number: int, act: Callable[[], object], root: Path, reading: bool = False) -> None:
    """Lets something happen at the `number`-th event."""

    def happens(count: int, path: str) -> None:
        if count == number:
            act()

    at_event(root, happens, reading)


def without_locks(code: int = errno.ENOLCK) -> None:
    """Lets the file system have no file locks."""

    def flock(*given: object) -> None:
        raise OSError(code, os.strerror(code))

    fcntl.flock = flock


def limit_files(largest: int) -> None:
    """Lets no file of this process get larger than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
