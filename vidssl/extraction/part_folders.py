"""The folders of a run's parts, and how their shards are gathered into one artifact.

    KIND/NAME/.run-XXXX/
      shard-NNNN.h5, spool-NNNN.*     of a process that does the whole run
      parts/0003-of-0008/             of part 3 of 8: shards and spool of its own
        part.json                     written at its end: digests of its shards, its quarantine
      parts/0003-of-0008.lock         held by the process that does this part
      quarantine.csv                  written when all is gathered; only publishing is left

A part writes in its own folder only. So parts wait for each other only when one begins, and when
one checks whether it was the last (:meth:`vidssl.workspace.run.Run.alone`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import fsync_folder, write_json
from vidssl.base.locks import file_lock, is_locked
from vidssl.base.text import counted
from vidssl.extraction.partition import Part
from vidssl.extraction.quarantine import QUARANTINE_FILE, QuarantineRow, write_quarantine
from vidssl.shards import ShardWriter, finished_videos, shard_files
from vidssl.shards.format import shard_name, shard_number
from vidssl.workspace.artifacts import FileRecord, file_record

PARTS = "parts"
PART_MANIFEST = "part.json"
PART_FORMAT = 1

Views = Mapping[str, Mapping[str, Any]]


class NothingUsable(VidsslError):
    """None of a run's videos can be used; the text names the first and its reason."""


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
        """Writes the part's manifest: it is finished. Reads its shards once, to record digests."""
        shards = {path.name: file_record(path) for path in shard_files(self.path)}
        write_json(
            self.path / PART_MANIFEST,
            {"vidssl": "part", "format": PART_FORMAT, "part": str(self.part)}
            | {"shards": shards, "quarantine": sorted(quarantine)},
        )

    def reopen(self) -> None:
        """Deletes the part's manifest: videos that it left out are tried again, and those only."""
        (self.path / PART_MANIFEST).unlink(missing_ok=True)

    def manifest(self) -> Mapping[str, Any]:
        """Returns what :meth:`finish` wrote.

        Raises:
            VidsslError: it cannot be read, or is of an unknown version.
        """
        path = self.path / PART_MANIFEST
        try:
            found = json.loads(path.read_text())
        except ValueError:
            raise VidsslError(f"{path} is damaged: it is not JSON") from None
        if found.get("format") != PART_FORMAT:
            raise VidsslError(
                f"{path} has format version {found.get('format')}, and this vidssl reads version "
                f"{PART_FORMAT}: finish the run with the vidssl that began it"
            )
        return dict(found)

    def quarantine(self) -> list[QuarantineRow]:
        """Returns the videos that a finished part left out; an unfinished part tries them again."""
        if not self.finished:
            return []
        return [(video, name, reason) for video, name, reason in self.manifest()["quarantine"]]


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


# ── gathering ────────────────────────────────────────────────────────────────────────────────


def is_gathered(run_folder: Path) -> bool:
    """Whether only publishing is left of a run."""
    return (run_folder / QUARANTINE_FILE).exists()


def gather(
    run_folder: Path,
    views: Views,
    videos: Collection[str],
    quarantine: Sequence[QuarantineRow] = (),
) -> dict[str, FileRecord]:
    """Moves the shards of all parts into the run's folder; copies none.

    May be killed at any moment and called again. To be called by a process that holds the lock of
    the whole run, or in :meth:`vidssl.workspace.run.Run.alone` after its own part is
    finished.

    Args:
        videos: ids, each of which must be stored or left out.
        quarantine: videos that the caller itself left out.

    Returns:
        {file: record} of the shards whose digest a part has recorded.

    Raises:
        NothingUsable: no video is stored; all were left out.
        VidsslError: videos are missing or doubled, or another process is doing a part.
    """
    if is_gathered(run_folder):
        _remove_parts(run_folder)
        return {}
    folders = part_folders(run_folder)
    _finish_spools(run_folder, folders, views)
    rows = {row[0]: row for row in [*quarantine, *(r for f in folders for r in f.quarantine())]}
    done = _folder_of_each([run_folder, *(folder.path for folder in folders)], views)
    missing = set(videos) - done.keys() - rows.keys()
    if missing:
        raise VidsslError(
            f"no part has {counted(len(missing), 'video')}, such as {min(missing)}: "
            "run the same command without --shard to add them"
        )
    if not done:
        raise NothingUsable(_nothing_usable(list(rows.values())))
    records = _move_shards(run_folder, folders)
    write_quarantine(run_folder, [row for video, row in rows.items() if video not in done])
    _remove_parts(run_folder)
    return records


def _nothing_usable(quarantine: Sequence[QuarantineRow]) -> str:
    _, name, reason = quarantine[0]
    if len(quarantine) == 1:
        return f"{name} cannot be used: {reason}"
    return f"not one of {len(quarantine)} videos can be used; the first, {name}: {reason}"


def _finish_spools(run_folder: Path, folders: Sequence[PartFolder], views: Views) -> None:
    """Turns the spools that stopped processes left into shards.

    The run's own spool comes first, so that no part's shard takes the number of its next shard.
    """
    _finish_spool(run_folder, views)
    for folder in folders:
        if not folder.finished:
            with folder.lock(f"another process is at work on part {folder.part} of this run"):
                _finish_spool(folder.path, views)


def _finish_spool(folder: Path, views: Views) -> None:
    with ShardWriter(folder, views) as writer:
        writer.finish()


def _folder_of_each(folders: Sequence[Path], views: Views) -> dict[str, Path]:
    """Returns {video: folder that holds it}.

    Raises:
        VidsslError: two folders hold one, which happens only where file locks do not work.
    """
    folder_of: dict[str, Path] = {}
    for folder in folders:
        for video in finished_videos(folder, views):
            if video in folder_of:
                raise VidsslError(
                    f"{video} is both in {folder_of[video]} and in {folder}, as if file locks did "
                    "not reach from machine to machine: delete the second folder and run its part "
                    "again"
                )
            folder_of[video] = folder
    return folder_of


def _move_shards(run_folder: Path, folders: Sequence[PartFolder]) -> dict[str, FileRecord]:
    own = shard_files(run_folder)
    number = shard_number(own[-1]) + 1 if own else 0
    records: dict[str, FileRecord] = {}
    for folder in folders:
        known = folder.manifest()["shards"] if folder.finished else {}
        for path in shard_files(folder.path):
            name = shard_name(number)
            os.rename(path, run_folder / name)
            if path.name in known:
                records[name] = known[path.name]
            number += 1
    fsync_folder(run_folder)
    return records


def _remove_parts(run_folder: Path) -> None:
    """Deletes the parts' folders; moves them out of the run's folder first, in one step."""
    spent = run_folder.with_name(f"{run_folder.name}.{PARTS}")
    shutil.rmtree(spent, ignore_errors=True)
    if (run_folder / PARTS).exists():
        os.rename(run_folder / PARTS, spent)
        shutil.rmtree(spent, ignore_errors=True)
