"""Adds the SHA-256 of a file's bytes to its end, and checks it.

For files that only the run that wrote them reads again. A format that is read from its beginning,
or that may end with a comment, is read as before by those who do not know of it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from vidssl.base.stored_json import DamagedFile

MARK = b"vidssl sha256 "  # then 64 hex digits, which end the file
LENGTH = len(MARK) + 64


def add_checksum(data: bytes) -> bytes:
    """Returns the bytes with their checksum at the end."""
    return data + MARK + hashlib.sha256(data).hexdigest().encode()


def check_end(data: bytes, path: Path) -> bool:
    """Whether the bytes of a file end with a checksum, which is that of the bytes before it.

    Raises:
        DamagedFile: it is another.
    """
    if not re.fullmatch(re.escape(MARK) + rb"[0-9a-f]{64}", data[-LENGTH:]):
        return False
    if hashlib.sha256(memoryview(data)[:-LENGTH]).hexdigest() != data[-64:].decode():
        raise DamagedFile(f"{path} is damaged: its bytes are not those that were written")
    return True
