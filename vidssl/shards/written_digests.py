"""Keeps the digests of shards as they were written, until they are published.

`shards.sha256` beside the shards has a line `DIGEST  NAME` for each, as `sha256sum` writes them. A
line is on the disk before its shard has its name. The file is no part of a published set, whose
artifact.json has the digests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from vidssl.base.files import open_to_append, read_regular

DIGESTS_FILE = "shards.sha256"


def note_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Adds {name: SHA-256} of shards; when this returns it survives a power cut.

    Raises:
        OSError: it could not be written.
    """
    with os.fdopen(open_to_append(folder / DIGESTS_FILE), "ab") as file:
        # A line that a full disk has cut short must not swallow the next one.
        file.write(b"\n" + b"".join(f"{d}  {n}\n".encode() for n, d in digests.items()))
        file.flush()
        os.fsync(file.fileno())


def forget_digests(folder: Path) -> None:
    """Deletes what was noted, when the set is about to be published."""
    (folder / DIGESTS_FILE).unlink(missing_ok=True)


def written_digests(folder: Path) -> list[tuple[str, str]]:
    """Returns (name, SHA-256) of the shards as they were written; damaged lines are left out.

    A name may come twice, with the digests of two shards that had it one after the other.

    Raises:
        NotRegular: a pipe or a device lies in its place.
    """
    try:
        text = read_regular(folder / DIGESTS_FILE).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [(name, digest) for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.M)]
