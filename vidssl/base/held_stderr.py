"""Holds back what a library prints on stderr, below Python, while a progress bar may be drawn."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from typing import IO, Self


class HeldStderr:
    """Sends this process's stderr to a file, and at the end prints what was not to be forgotten.

    C++ code writes to descriptor 2, where no Python object can catch it. Other threads' words are
    held as well, so it is for short pieces of work. Where stderr is closed it does nothing.
    """

    def __init__(self) -> None:
        self._own: int | None = None
        self._file: IO[bytes] | None = None
        self._forgotten: tuple[str, ...] = ()

    def forget(self) -> None:
        """Makes all that was printed be dropped: its message comes in another way."""
        self._forgotten = ("",)

    def forget_lines(self, *begins: str) -> None:
        """Makes lines be dropped that begin in one of these ways."""
        self._forgotten += begins

    def __enter__(self) -> Self:
        with suppress(OSError):
            own = os.dup(2)
            self._own, self._file = own, tempfile.TemporaryFile()
            _flush()
            os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *error: object) -> None:
        if self._own is None or self._file is None:
            return
        _flush()
        os.dup2(self._own, 2)
        os.close(self._own)
        with self._file as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
        kept = [line for line in lines if not line.startswith(self._forgotten)]
        if kept:
            with suppress(OSError):
                os.write(2, ("\n".join(kept) + "\n").encode())


def _flush() -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # closed
            sys.stderr.flush()
