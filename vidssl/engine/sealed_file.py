"""Writes and reads files of torch.save that end with a checksum of all bytes before it.

Such a file is a zip archive, and the checksum is its comment: torch.load and any other reader of
zip archives read the file as before. torch itself notices hardly any changed byte of a tensor.
"""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import torch

from vidssl.base.checksum_at_end import LENGTH, add_checksum, check_end
from vidssl.base.errors import VidsslError
from vidssl.base.stored_json import DamagedFile, open_regular

END_OF_ARCHIVE = b"PK\x05\x06"  # begins its last 22 bytes, which end with the comment's length


def seal(value: Any) -> bytes:
    """Returns what torch.save writes of a value, with a checksum at the end."""
    file = io.BytesIO()
    torch.save(value, file)
    data = file.getvalue()
    if data[-22:-18] == END_OF_ARCHIVE:  # a zip archive without a comment, as torch writes them
        data = data[:-2] + LENGTH.to_bytes(2, "little")
    return add_checksum(data)


def read_sealed(path: Path) -> tuple[Any, bool]:
    """Reads a file of torch.save on the CPU, after checking its checksum; runs no code in it.

    Returns:
        The value, and whether the file had a checksum; one without is read as it is.

    Raises:
        DamagedFile: its bytes are not those that were written, or torch cannot read them.
        VidsslError: it may not be read.
        FileNotFoundError: there is no such file.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = DamagedFile if error.errno == errno.EIO else VidsslError
        raise kind(f"{path} cannot be read: {error.strerror}") from error
    sealed = check_end(data, path)
    try:
        # From these very bytes: a second read of the file might give others.
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DamagedFile(f"{path} is damaged: torch cannot read it") from error
    return value, sealed
