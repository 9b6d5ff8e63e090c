"""The format that writer and reader of shards share: file names, records and digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError

SHARD_KIND = "vidssl-shard"
SHARD_FORMAT = 1

Params = Mapping[str, Any]


class DamagedShard(VidsslError):
    """A shard has other bytes than were written.

    Attributes:
        fault: what is wrong with the shard, without the advice on what to do.
    """

    def __init__(self, fault: str, advice: str = "") -> None:
        super().__init__(f"{fault}; {advice}" if advice else fault)
        self.fault = fault


@dataclass(frozen=True)
class VideoRecord:
    """One video's row in a shard's table.

    Attributes:
        id: see :class:`vidssl.dataset.video.Source`.
        path: POSIX path relative to the root of the videos.
        fps: frames per second, 0.0 when unknown.
        frames: decoded frames of the source.
        width, height: pixels of the source, upright.
        note: something the user should know, such as damage; usually empty.
    """

    id: str
    path: str
    fps: float
    frames: int
    width: int
    height: int
    note: str = ""


def shard_files(folder: Path) -> list[Path]:
    """Returns a folder's shards, in the order of their numbers."""
    return sorted(folder.glob("shard-*.h5"), key=shard_number)


def shard_name(number: int) -> str:
    """Returns the name of a shard."""
    return f"shard-{number:04d}.h5"


def shard_number(path: Path) -> int:
    """Returns the number in a shard's name, -1 when it has none."""
    match = re.fullmatch(r"shard-(\d{4,})\.h5", path.name)
    return int(match[1]) if match else -1


def video_digest(blobs: Mapping[str, Sequence[bytes]], params: Mapping[str, Params]) -> str:
    """Returns the SHA-256 (hex) of a video's views: names, parameters and bytes.

    It does not depend on the video's name, on how videos are spread over shards, or on time.
    """
    digest = hashlib.sha256()
    for view in sorted(blobs):
        head = json.dumps([view, params[view], len(blobs[view])], sort_keys=True)
        digest.update(head.encode() + b"\n")
        for blob in blobs[view]:
            digest.update(len(blob).to_bytes(8, "little"))
            digest.update(blob)
    return digest.hexdigest()


def data_digest(videos: Iterable[tuple[str, str]]) -> str:
    """Returns the SHA-256 (hex) of a whole set: (id, digest) of every video, sorted by id."""
    digest = hashlib.sha256()
    for video_id, mark in sorted(videos):
        digest.update(f"{video_id}\0{mark}\n".encode())
    return digest.hexdigest()


def check_same_views(
    path: Path, found: Mapping[str, Params], expected: Mapping[str, Params]
) -> None:
    """Checks that a shard has the same views as the shards beside it.

    Raises:
        VidsslError: it has other views, or other parameters of a view.
    """
    if found != expected:
        raise VidsslError(f"{path} was made with other parameters than the shards beside it")
