"""Keeps computed arrays in a file, by number: whoever needs one again reads it.

A kept array is never needed and never wrong. It is found only if its bytes, its number and all that
it was computed from are those that were written; else it is computed again. So such a file may be
deleted, cut or damaged at any time, and several processes may write it at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 4 << 30  # of all files in a folder; the longest unused go first
SHARE_OF_FREE = 10  # at most a tenth of the free disk: what is kept is a convenience
CHECK = 16  # bytes of a checksum


class KeptArrays:
    """Arrays of one shape and type in a file, by number from 0.

    Args:
        secret: a digest of all that the arrays are computed from; checksums depend on it.
    """

    def __init__(self, path: Path, secret: bytes, shape: Sequence[int], dtype: str) -> None:
        self.path = path
        self._secret, self._shape, self._dtype = secret, tuple(shape), np.dtype(dtype)
        self._width = CHECK + int(np.prod(self._shape)) * self._dtype.itemsize
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._full = False

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)

    def get(self, number: int) -> np.ndarray | None:
        """Returns an array, or None where it is not there as it was written."""
        try:
            found = os.pread(self._file, self._width, number * self._width)
        except OSError:
            return None
        if len(found) < self._width or found[:CHECK] != self._check(number, found[CHECK:]):
            return None
        return np.frombuffer(found, self._dtype, offset=CHECK).reshape(self._shape)

    def put(self, number: int, array: np.ndarray) -> bool:
        """Writes an array; returns whether it is kept. A full disk is no error."""
        if self._full:
            return False
        data = np.ascontiguousarray(array, self._dtype).tobytes()
        try:
            whole = self._check(number, data) + data
            self._full = os.pwrite(self._file, whole, number * self._width) < self._width
        except OSError:
            self._full = True
        return not self._full

    def _check(self, number: int, data: bytes) -> bytes:
        found = hashlib.blake2b(data, digest_size=CHECK, key=self._secret)
        found.update(number.to_bytes(8, "little"))
        return found.digest()


@dataclass(frozen=True)
class Keeper:
    """A folder in which arrays are kept.

    Attributes:
        key: what all arrays that are opened by it are computed from, as plain data.
    """

    folder: Path
    key: Mapping[str, Any]

    def open_arrays(
        self, more: Mapping[str, Any], count: int, shape: Sequence[int], dtype: str
    ) -> KeptArrays | None:
        """Opens the file of arrays that are computed from `key` and `more`.

        Returns:
            None where they would take too much of the disk, or the folder cannot be written.
        """
        whole = {"key": dict(self.key), "more": dict(more), "shape": list(shape), "dtype": dtype}
        secret = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).digest()
        size = count * (CHECK + int(np.prod(shape)) * np.dtype(dtype).itemsize)
        path = self.folder / f"{secret.hex()[:32]}.arrays"
        try:
            self.folder.mkdir(exist_ok=True)
            if not path.exists() and not self._makes_room(size):
                return None
            kept = KeptArrays(path, secret, shape, dtype)
            os.utime(path)
        except OSError:
            return None
        return kept

    def _makes_room(self, size: int) -> bool:
        """Deletes the longest unused files until `size` more fit; false where they never do."""
        if size > min(MOST_BYTES, shutil.disk_usage(self.folder).free // SHARE_OF_FREE):
            return False
        found = sorted(_sizes(self.folder.glob("*.arrays")))
        left = sum(used for _, used, _ in found)
        for _, used, path in found:
            if left + size <= MOST_BYTES:
                break
            path.unlink(missing_ok=True)
            left -= used
        return True


def _sizes(paths: Iterable[Path]) -> list[tuple[float, int, Path]]:
    """Returns (time of last use, bytes on disk, path) of the files that are still there."""
    found = []
    for path in paths:
        try:
            state = path.lstat()
        except OSError:
            continue
        found.append((state.st_mtime, state.st_blocks * 512, path))
    return found
