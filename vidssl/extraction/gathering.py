"""Gathers the shards of a run's parts into one folder, after comparing them with what was written.

Stored videos wait until the last one is processed, for days perhaps. Before they are published
every shard is read once and compared with its digest (shards.sha256, part.json). What differs is
deleted and told in one line, and its videos are made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vidssl.base.cores_and_memory import cores
from vidssl.base.errors import VidsslError
from vidssl.base.files import fsync_folder
from vidssl.base.text import counted
from vidssl.extraction.part_folders import PARTS, PartFolder, Say, Views, part_folders
from vidssl.extraction.quarantine import QUARANTINE_FILE, QuarantineRow, write_quarantine
from vidssl.shards import (
    DamagedShard,
    ShardReader,
    ShardWriter,
    finished_videos,
    shard_files,
    shard_videos,
)
from vidssl.shards.format import shard_name
from vidssl.shards.written_digests import forget_digests, note_digests, written_digests
from vidssl.workspace.artifacts import FileRecord, file_record


class NothingUsable(VidsslError):
    """None of a run's videos can be used; the text names the first and its reason."""


@dataclass(frozen=True)
class Stored:
    """What a run has stored, after comparing it with what was written.

    Attributes:
        records: of every shard that is sound, by its path.
        lost: ids of the videos that must be made again, since what they were in is damaged.
    """

    records: Mapping[Path, FileRecord]
    lost: Collection[str]


def is_gathered(run_folder: Path) -> bool:
    """Whether only publishing is left of a run."""
    return (run_folder / QUARANTINE_FILE).exists()


# ── damage ───────────────────────────────────────────────────────────────────────────────────


def drop_unreadable(run_folder: Path, views: Views, say: Say, own: PartFolder | None) -> None:
    """Deletes manifests and shards that cannot be read, so that their videos are made again.

    Shards without a noted digest, of version 0.1, are read whole, and their digests are noted.

    Args:
        own: the part of this process: others of its division may be at work, and their unfinished
            folders are left alone. None: no other process is running.
    """
    parts = part_folders(run_folder)
    for part in parts:
        part.drop_damaged_manifest(say)
    noted = _NotedDigests(run_folder, parts)
    resting = [p for p in parts if own is None or p.finished or own.part.count != p.part.count]
    for folder in {run_folder, *(p.path for p in resting), *([own.path] if own else [])}:
        for path in shard_files(folder):
            if not noted.is_readable(path, views):
                _drop(path, say)
            elif not noted.has(path):
                if _is_sound_inside(path):
                    note_digests(folder, {path.name: file_record(path)["sha256"]})
                else:
                    _drop(path, say)


def check_stored(
    run_folder: Path,
    views: Views,
    videos: Collection[str],
    quarantine: Sequence[QuarantineRow],
    say: Say,
) -> Stored:
    """Turns all spools into shards, reads every shard, and deletes those that are damaged.

    To be called by a process that holds the lock of the whole run, or in
    :meth:`vidssl.workspace.run.Run.alone` after its own part is finished.

    Args:
        videos: ids of all videos of the run.
        quarantine: videos that the caller itself left out.
        say: is told one sentence for each file that is damaged.

    Raises:
        VidsslError: another process is doing a part.
    """
    told: list[str] = []
    parts = part_folders(run_folder)
    for part in parts:
        part.drop_damaged_manifest(told.append)
    if not is_gathered(run_folder):
        told += _finish_spools(run_folder, parts, views)
    records = _sound_shards(run_folder, parts, told.append)
    if told and is_gathered(run_folder):
        (run_folder / QUARANTINE_FILE).unlink()  # something is missing: it is gathered once more
    lost: set[str] = set()
    if not is_gathered(run_folder):
        stored = {video for path in records for video in shard_videos(path, views)}
        rows = [*quarantine, *(row for part in parts for row in part.quarantine())]
        lost = set(videos) - stored - {video for video, _, _ in rows}
    if lost and not told:
        told += [f"{path} is missing: its videos are made again" for path in _missing(parts)]
    if lost and not told:  # it was deleted by a process that was then killed
        told.append(f"{counted(len(lost), 'video')}, such as {min(lost)}, will be made again")
    for sentence in told:
        say(sentence)
    return Stored(records, lost)


class _NotedDigests:
    """The digests of a run's shards as they were written, from shards.sha256 and part.json."""

    def __init__(self, run_folder: Path, parts: Sequence[PartFolder]) -> None:
        self._of = {run_folder: written_digests(run_folder)}
        for part in parts:
            listed = part.manifest().shards.items() if part.finished else ()
            self._of[part.path] = written_digests(part.path) + [(n, r.sha256) for n, r in listed]
        # A shard may have been renamed since: its digest counts, not its name.
        self._all = {digest for pairs in self._of.values() for _, digest in pairs}

    def has(self, path: Path) -> bool:
        """Whether a digest was noted for a shard."""
        return any(name == path.name for name, _ in self._of[path.parent])

    def is_sound(self, path: Path, record: FileRecord) -> bool:
        """Whether a shard has the bytes that were written."""
        return record["sha256"] in self._all or (not self.has(path) and _is_sound_inside(path))

    def is_readable(self, path: Path, views: Views) -> bool:
        """Whether a shard's tables can be read.

        Raises:
            VidsslError: it has the bytes that were written, but is no shard of this run.
        """
        try:
            shard_videos(path, views)
            return True
        except VidsslError as error:
            if file_record(path)["sha256"] in self._all:
                raise  # of other parameters, or of another version
            if not self.has(path) and not isinstance(error, DamagedShard):
                raise
            return False


def _sound_shards(
    run_folder: Path, parts: Sequence[PartFolder], say: Say
) -> dict[Path, FileRecord]:
    """Reads all shards, deletes those that are damaged, and returns the records of the others."""
    noted = _NotedDigests(run_folder, parts)
    folders = [run_folder, *(part.path for part in parts)]
    paths = [path for folder in folders for path in shard_files(folder)]
    sound = {}
    with ThreadPoolExecutor(min(8, cores())) as pool:
        for path, found in zip(paths, pool.map(file_record, paths), strict=True):
            if noted.is_sound(path, found):
                sound[path] = found
            else:
                _drop(path, say)
    return sound


def _is_sound_inside(path: Path) -> bool:
    """Whether each frame of a shard has its checksum, and each video its digest."""
    try:
        with ShardReader([path]) as reader:
            return not any(reader.verify())
    except VidsslError:
        return False


def _drop(path: Path, say: Say) -> None:
    say(f"{path} is damaged: its videos are made again")
    path.unlink()


def _missing(parts: Sequence[PartFolder]) -> Iterator[Path]:
    """Yields the shards that finished parts list and do not have."""
    for part in parts:
        if part.finished:
            paths = [part.path / name for name in part.manifest().shards]
            yield from (path for path in paths if not path.exists())


def _finish_spools(run_folder: Path, parts: Sequence[PartFolder], views: Views) -> list[str]:
    """Turns the spools that stopped processes left into shards.

    The run's own spool comes first, so that no part's shard takes the number of its next shard.

    Returns:
        A sentence for each spool in which videos were damaged.
    """
    lost = _finish_spool(run_folder, views)
    for part in parts:
        if not part.finished:
            with part.lock(f"another process is at work on part {part.part} of this run"):
                lost += _finish_spool(part.path, views)
    return lost


def _finish_spool(folder: Path, views: Views) -> list[str]:
    with ShardWriter(folder, views, note_digests=True) as writer:
        writer.finish()
        return writer.lost


# ── gathering ────────────────────────────────────────────────────────────────────────────────


def gather(
    run_folder: Path,
    views: Views,
    videos: Collection[str],
    records: Mapping[Path, FileRecord],
    quarantine: Sequence[QuarantineRow] = (),
) -> dict[str, FileRecord]:
    """Moves the shards of all parts into the run's folder; copies none.

    May be killed at any moment and called again, after :func:`check_stored`.

    Args:
        videos: ids, each of which must be stored or left out.
        records: of the shards that were read and are sound.
        quarantine: videos that the caller itself left out.

    Returns:
        {file: record} of the shards that need not be read again.

    Raises:
        NothingUsable: no video is stored; all were left out.
        VidsslError: videos are missing or doubled.
    """
    if not is_gathered(run_folder):
        records = _gather(run_folder, views, videos, records, quarantine)
    _remove_parts(run_folder)
    forget_digests(run_folder)
    return {path.name: found for path, found in records.items() if path.parent == run_folder}


def _gather(
    run_folder: Path,
    views: Views,
    videos: Collection[str],
    records: Mapping[Path, FileRecord],
    quarantine: Sequence[QuarantineRow],
) -> dict[Path, FileRecord]:
    parts = part_folders(run_folder)
    rows = {row[0]: row for row in [*quarantine, *(r for p in parts for r in p.quarantine())]}
    done = _folder_of_each([run_folder, *(part.path for part in parts)], views)
    missing = set(videos) - done.keys() - rows.keys()
    if missing:
        raise VidsslError(
            f"no part has {counted(len(missing), 'video')}, such as {min(missing)}: "
            "run the same command without --shard to add them"
        )
    if strange := done.keys() - set(videos):
        raise VidsslError(
            f"{done[min(strange)]} holds {min(strange)}, which is no video of this run: delete "
            "that folder and run the same command again"
        )
    if not done:
        raise NothingUsable(_nothing_usable(list(rows.values())))
    moved = _move_shards(run_folder, parts, records)
    note_digests(run_folder, {path.name: found["sha256"] for path, found in moved.items()})
    write_quarantine(run_folder, [row for video, row in rows.items() if video not in done])
    return moved


def _nothing_usable(quarantine: Sequence[QuarantineRow]) -> str:
    _, name, reason = quarantine[0]
    if len(quarantine) == 1:
        return f"{name} cannot be used: {reason}"
    return f"not one of {len(quarantine)} videos can be used; the first, {name}: {reason}"


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


def _move_shards(
    run_folder: Path, parts: Sequence[PartFolder], records: Mapping[Path, FileRecord]
) -> dict[Path, FileRecord]:
    """Numbers all shards from 0 on in the run's folder; returns the known records by new path."""
    known: dict[Path, FileRecord] = {}
    here = shard_files(run_folder)
    there = [path for part in parts for path in shard_files(part.path)]
    for number, path in enumerate([*here, *there]):
        target = run_folder / shard_name(number)
        if path != target:  # one that was damaged has left a gap, or it is a part's
            os.rename(path, target)
        if path in records:
            known[target] = records[path]
    fsync_folder(run_folder)
    return known


def _remove_parts(run_folder: Path) -> None:
    """Deletes the parts' folders; moves them out of the run's folder first, in one step."""
    spent = run_folder.with_name(f"{run_folder.name}.{PARTS}")
    shutil.rmtree(spent, ignore_errors=True)
    if (run_folder / PARTS).exists():
        os.rename(run_folder / PARTS, spent)
        shutil.rmtree(spent, ignore_errors=True)
