"""The folders of a run's parts. How their shards are gathered: :mod:`vidssl.extraction.gathering`.

    KIND/NAME/.run-XXXX/
      shard-NNNN.h5, spool-NNNN.*     of a process that does the whole run
      parts/0003-of-0008/             of part 3 of 8: shards and spool of its own
        part.json                     written at its end: digests of its shards, its quarantine
      shards.sha256                   digests of shards as they were written; one in each folder
      parts/0003-of-0008.lock         held by the process that does this part
      quarantine.csv                  written when all is gathered; only publishing is left

A part writes in its own folder only. So parts wait for each other only when one begins, and when
one checks whether it was the last (:meth:`vidssl.workspace.run.Run.alone`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import write_json
from vidssl.base.locks import file_lock, is_locked
from vidssl.base.stored_json import DamagedFile, bounded, read_json, record
from vidssl.base.text import counted
from vidssl.extraction.partition import Part
from vidssl.extraction.quarantine import QuarantineRow
from vidssl.shards import (
    finished_videos,
    shard_files,
)
from vidssl.shards.written_digests import written_digests
from vidssl.workspace.artifacts import canonical_digest, file_record

PARTS = "parts"
PART_MANIFEST = "part.json"
PART_FORMAT = 1

Views = Mapping[str, Mapping[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ShardRecord:
    """A shard in part.json: its size and digest as it was written."""

    bytes: int = field(metadata=bounded(at_least=0))
    sha256: str = field(metadata=bounded(pattern="[0-9a-f]{64}"))


@dataclass(frozen=True)
class PartManifest:
    """The content of part.json.

    Attributes:
        shards: {name: record}.
        quarantine: the videos that were left out.
        checksum: of all other fields; None: of version 0.1.
    """

    vidssl: str
    format: int
    part: str
    shards: dict[str, ShardRecord]
    quarantine: list[tuple[str, str, str]]
    checksum: str | None = None


@dataclass(frozen=True)
class PartFolder:
    """The folder of one part, below the work folder of its run."""

    run_folder: Path
    part: Part

    @property
    def path(self) -> Path:
        """The folder's path."""
        return self.run_folder / PARTS / f"{self.part.index:04d}-of-{self.part.count:04d}"

    @property
    def finished(self) -> bool:
        """Whether each of its videos is stored or left out."""
        return (self.path / PART_MANIFEST).exists()

    @property
    def at_work(self) -> bool | None:
        """Whether a process is doing this part now; None if that cannot be found out."""
        return is_locked(self._lock_path)

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def lock(self, refusal: str) -> AbstractContextManager[None]:
        """Locks the part; raises a :class:`VidsslError` of this text if another process has it."""
        self.path.parent.mkdir(exist_ok=True)
        return file_lock(self._lock_path, refusal)

    def finish(self, quarantine: Sequence[QuarantineRow]) -> None:
        """Writes the part's manifest: it is finished.

        The digests in it are those of its shards as they were written.
        """
        written = dict(written_digests(self.path))
        shards = {
            path.name: {"bytes": path.stat().st_size, "sha256": written[path.name]}
            if path.name in written
            else file_record(path)
            for path in shard_files(self.path)
        }
        body = {
            "vidssl": "part",
            "format": PART_FORMAT,
            "part": str(self.part),
            "shards": shards,
            "quarantine": sorted(map(list, quarantine)),
        }
        write_json(self.path / PART_MANIFEST, body | {"checksum": canonical_digest(body)})

    def reopen(self) -> None:
        """Deletes the part's manifest: videos that it left out are tried again, and those only."""
        (self.path / PART_MANIFEST).unlink(missing_ok=True)

    def manifest(self) -> PartManifest:
        """Returns what :meth:`finish` wrote.

        Raises:
            DamagedFile: it is not what was written.
            VidsslError: it is of an unknown version.
        """
        path = self.path / PART_MANIFEST
        found = read_json(path)
        version = found.get("format") if isinstance(found, dict) else None
        if isinstance(version, int) and version != PART_FORMAT:
            raise VidsslError(
                f"{path} has format version {version}, and this vidssl reads version "
                f"{PART_FORMAT}: finish the run with the vidssl that began it"
            )
        made = record(PartManifest, found, path)
        body = {name: value for name, value in found.items() if name != "checksum"}
        if made.checksum not in (None, canonical_digest(body)) or made.part != str(self.part):
            raise DamagedFile(f"{path} is damaged: its checksum does not fit its content")
        return made

    def quarantine(self) -> list[QuarantineRow]:
        """Returns the videos that a finished part left out; an unfinished part tries them again."""
        return self.manifest().quarantine if self.finished else []

    def drop_damaged_manifest(self, say: Say) -> None:
        """Deletes a manifest that is damaged; the part is then not finished."""
        try:
            if self.finished:
                self.manifest()
        except DamagedFile as error:
            say(f"{error}: part {self.part} tries again what it had left out")
            (self.path / PART_MANIFEST).unlink()


def part_folders(run_folder: Path) -> list[PartFolder]:
    """Returns the parts of a run that were begun, sorted by name."""
    found = []
    for path in sorted((run_folder / PARTS).glob("*-of-*")):
        match = re.fullmatch(r"(\d{4,})-of-(\d{4,})", path.name)
        if match:
            found.append(PartFolder(run_folder, Part(int(match[1]), int(match[2]))))
    return found


@contextmanager
def open_part(run_folder: Path, part: Part) -> Iterator[PartFolder]:
    """Locks one part of a run; to be entered in :meth:`vidssl.workspace.run.Run.alone`.

    Raises:
        VidsslError: another process is doing it, or the run is being done in another number of
            parts.
    """
    for other in part_folders(run_folder):
        if other.part.count != part.count:
            # With two numbers of parts at once, videos would be done twice.
            with other.lock(
                f"this run is being worked on in {counted(other.part.count, 'part')}: take one of "
                f"these, or end those processes before dividing it into {part.count} ({run_folder})"
            ):
                pass
    own = PartFolder(run_folder, part)
    with own.lock(f"another process is at work on part {part} of this run ({own.path})"):
        own.path.mkdir(exist_ok=True)  # from now on other processes see that this part has begun
        yield own


def finished_ids(
    run_folder: Path, views: Views, part: Part | None = None, left_out: bool = True
) -> set[str]:
    """Returns the ids of a run's videos that are stored, or that a finished part left out.

    Args:
        part: the part that asks. Other unfinished parts of the same division do not count: they
            may be running, and have other videos. None: no other process is running.
        left_out: whether those count that a finished part left out; else they are tried again.
    """
    found = set(finished_videos(run_folder, views))
    for folder in part_folders(run_folder):
        if folder.finished or part is None or folder.part.count != part.count:
            found |= set(finished_videos(folder.path, views))
            if left_out:
                found |= {video for video, _, _ in folder.quarantine()}
    return found


def unfinished_parts(run_folder: Path, part: Part) -> int:
    """Returns how many parts of this part's division are not finished yet, begun or not."""
    folders = part_folders(run_folder)
    return part.count - sum(f.finished for f in folders if f.part.count == part.count)


def parts_in_words(run_folder: Path) -> str:
    """Returns how far a divided run is, such as "5 of 8 parts finished, 2 at work".

    Empty for a run that was not divided.
    """
    finished: dict[int, int] = {}
    at_work = 0
    for folder in part_folders(run_folder):
        count = folder.part.count
        finished[count] = finished.get(count, 0) + folder.finished
        at_work += bool(folder.at_work)
    shown = [f"{done} of {counted(count, 'part')} finished" for count, done in finished.items()]
    return ", ".join([*shown, f"{at_work} at work"] if at_work else shown)
