"""Turns videos into shards: what extract-flow, extract-view and pack have in common.

A stage describes in a :class:`ShardJob` how videos are processed. :func:`run_shard_job` goes on
where earlier processes stopped, stores the results of the pool, and publishes the artifact. It does
so for all the videos, or for one part of them; then the last part publishes (see
:mod:`vidssl.extraction.part_folders`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.progress import Progress
from vidssl.base.text import counted
from vidssl.dataset.video import Source, sorted_ids
from vidssl.extraction.gathering import (
    NothingUsable,
    check_stored,
    drop_unreadable,
    gather,
    is_gathered,
)
from vidssl.extraction.part_folders import (
    PartFolder,
    finished_ids,
    open_part,
    unfinished_parts,
)
from vidssl.extraction.part_videos import PartVideos
from vidssl.extraction.process_pool import Pool
from vidssl.extraction.quarantine import QuarantineRow, quarantine_of, read_quarantine
from vidssl.shards import ShardReader, ShardWriter, open_shards
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.run import Run
from vidssl.workspace.stage_result import PartReport, StageResult


@dataclass(frozen=True)
class ShardJob:
    """How the videos of a run are processed and stored.

    Attributes:
        title: of the progress bar.
        views: {view: its parameters}.
        pool: processes the videos that are not done yet.
        shard_bytes: size at which a shard is closed, in bytes of blobs.
        earlier: an artifact with the same parameters, from which videos are copied.
        retry: whether videos that finished parts left out are tried again.
        retried: the finished artifact of this very run, whose left-out videos are tried again.
    """

    title: str
    views: Mapping[str, Mapping[str, Any]]
    pool: Pool
    shard_bytes: int
    earlier: Artifact | None = None
    retry: bool = False
    retried: Artifact | None = None


def videos_digest(sources: Sequence[Source]) -> str:
    """Returns the digest of the videos' ids, the same on every machine."""
    return canonical_digest(sorted_ids(sources))


def reused_result(artifact: Artifact) -> StageResult:
    """Returns the result of a stage whose run was finished before."""
    notes = _notes(open_shards(artifact))
    try:
        left_out = _names(quarantine_of(artifact))
    except VidsslError as error:  # a list of complaints: no reason to refuse the artifact
        left_out = []
        notes.append(f"which videos were left out cannot be told: {error}")
    return StageResult(artifact, reused=True, quarantined=left_out, notes=notes)


def run_shard_job(
    run: Run,
    job: ShardJob,
    sources: Sequence[Source],
    progress: Progress,
    part_videos: PartVideos | None = None,
) -> StageResult:
    """Processes the videos that the run has not finished yet, and publishes the artifact.

    Args:
        run: open; shared if it is done in parts.
        sources: all videos of the run.
        part_videos: the videos of this process, which publishes only if its part is the last one
            to finish; None: all videos that are left, including those of unfinished parts.

    Raises:
        VidsslError: not one video can be used (nothing is published), the disk is full, or
            another process is doing this part.
        Interrupted: a signal came; the same command goes on.
    """
    if part_videos is not None:
        return _run_part(run, job, sources, part_videos, progress)
    if is_gathered(run.folder):
        return _gather_and_publish(run, job, sources, progress)
    drop_unreadable(run.folder, job.views, progress.say, own=None)
    done = finished_ids(run.folder, job.views, None, not job.retry)
    quarantine = _process_remaining(run.folder, job, sources, done, progress)
    return _gather_and_publish(run, job, sources, progress, quarantine)


def _run_part(
    run: Run, job: ShardJob, sources: Sequence[Source], part_videos: PartVideos, progress: Progress
) -> StageResult:
    with ExitStack() as held:
        with run.exclusive():
            if (ended := _published_by_others(run, job, sources, progress)) is not None:
                return ended
            own = held.enter_context(open_part(run.folder, part_videos.part))
            drop_unreadable(run.folder, job.views, progress.say, own)
            if job.retry and own.quarantine():
                own.reopen()
            before = own.finished
            done = finished_ids(run.folder, job.views, part_videos.part, not job.retry)
        if not before:
            mine = [source for source in sources if source.id in part_videos.ids]
            own.finish(_process_remaining(own.path, job, mine, done, progress))
    # The part is finished and its lock released. The last part that comes here publishes.
    with run.exclusive():
        if (ended := _published_by_others(run, job, sources, progress)) is not None:
            return ended
        report = _report(run, own, part_videos)
        if not report.unfinished:
            return replace(_gather_and_publish(run, job, sources, progress), part=report)
        return StageResult(None, before, _names(own.quarantine()), part=report)


def _process_remaining(
    folder: Path,
    job: ShardJob,
    sources: Sequence[Source],
    done: Collection[str],
    progress: Progress,
) -> list[QuarantineRow]:
    """Writes shards of the sources that are not done into `folder`; returns those left out.

    Videos that are damaged before they are in a shard are processed again.
    """
    quarantine: list[QuarantineRow] = []
    with ShardWriter(folder, job.views, job.shard_bytes, note_digests=True) as writer:
        sought = [source for source in sources if source.id not in done]
        if job.earlier is not None:
            _copy_earlier(job.earlier, writer, sought, progress)
        left = [source for source in sought if source.id not in writer.digests]
        if len(left) < len(sources):
            progress.say(
                f"done before: {len(sources) - len(left)} of {counted(len(sources), 'video')}"
            )
        frames, begin = 0, time.monotonic()
        with (
            progress.task(job.title, len(sources), "video", len(sources) - len(left)) as task,
            closing(job.pool(left)) as results,
        ):
            for source, result in results:
                if result.record is None:
                    quarantine.append((source.id, source.name, result.reason))
                    task.note(f"left out: {source.name}: {result.reason}")
                else:
                    writer.add(result.record, result.blobs)
                    frames += result.record.frames
                rate = frames / max(time.monotonic() - begin, 1e-9)
                task.advance(1, **{"frames/s": rate})
        writer.finish()
    for sentence in writer.lost:
        progress.say(sentence)
    if again := [source for source in sources if source.id in writer.lost_videos]:
        quarantine += _process_remaining(folder, job, again, (), progress)
    return quarantine


def _copy_earlier(
    earlier: Artifact, writer: ShardWriter, sources: Sequence[Source], progress: Progress
) -> None:
    """Copies the videos that an earlier artifact holds, so that only new videos are processed.

    Raises:
        DamagedShard: the earlier artifact is damaged.
    """
    with open_shards(earlier) as reader:
        known = [(source, reader.find(source.id)) for source in sources]
        notes = reader.notes()
        copied = 0
        for source, number in known:
            if number is None or source.id in writer.digests:
                continue
            blobs = {
                view: reader.read(view, number, range(reader.frame_count(view)[number]))
                for view in reader.views
            }
            writer.add(replace(reader.record(number), note=notes.get(source.id, "")), blobs)
            copied += 1
    if copied:
        progress.say(
            f"copied from {earlier.label}, made with the same options: {counted(copied, 'video')}"
        )


# ── publishing ──────────────────────────────────────────────────────────────────────────────


def _gather_and_publish(
    run: Run,
    job: ShardJob,
    sources: Sequence[Source],
    progress: Progress,
    quarantine: Sequence[QuarantineRow] = (),
) -> StageResult:
    videos = [source.id for source in sources]
    stored = check_stored(run.folder, job.views, videos, quarantine, progress.say)
    if again := [source for source in sources if source.id in stored.lost]:
        quarantine = [*quarantine, *_process_remaining(run.folder, job, again, (), progress)]
    try:
        known = gather(run.folder, job.views, videos, stored.records, quarantine)
    except NothingUsable:
        run.discard()
        raise
    return _publish(run, known, job.retried)


def _publish(
    run: Run, known: Mapping[str, Mapping[str, Any]], retried: Artifact | None
) -> StageResult:
    """Publishes a work folder in which all shards are gathered.

    Where a retry has brought nothing, the artifact that was finished before stays the newest.
    """
    reader = ShardReader(run.folder)
    quarantine = read_quarantine(run.folder)
    summary = _summary(reader, run.folder, len(quarantine))
    notes = _notes(reader)  # before the folder is renamed
    if retried is not None and reader.digest == retried.digest:
        run.discard()
        return StageResult(retried, True, _names(quarantine), notes, in_vain=True)
    artifact = run.publish(reader.digest, summary, known=known)
    return StageResult(artifact, quarantined=_names(quarantine), notes=notes)


def _published_by_others(
    run: Run, job: ShardJob, sources: Sequence[Source], progress: Progress
) -> StageResult | None:
    """Returns the result if other parts ended the run meanwhile; None if they did not.

    A run that they had gathered when they were killed is published here.
    """
    if run.finished_by_another():
        artifact = run.find_finished()
        if artifact is None:
            raise VidsslError("not one video can be used, as another part of this run has found")
        return reused_result(artifact)
    if is_gathered(run.folder):
        return _gather_and_publish(run, job, sources, progress)
    return None


def _report(run: Run, own: PartFolder, part_videos: PartVideos) -> PartReport:
    return PartReport(
        part=str(part_videos.part),
        run=f"{run.kind}/{run.name}",
        videos=len(part_videos.ids) - len(own.quarantine()),
        unfinished=unfinished_parts(run.folder, part_videos.part),
    )


def _names(quarantine: Sequence[QuarantineRow]) -> list[tuple[str, str]]:
    return sorted((name, reason) for _, name, reason in quarantine)


def _summary(reader: ShardReader, folder: Path, quarantined: int) -> dict[str, Any]:
    return {
        "videos": len(reader),
        "quarantined": quarantined,
        "views": {
            view: {"frames": int(reader.frame_count(view).sum()), **params}
            for view, params in reader.views.items()
        },
        "bytes": sum(path.stat().st_size for path in folder.glob("shard-*.h5")),
    }


def show_notes(notes: Sequence[str], progress: Progress, most: int = 5) -> None:
    """Prints the first few notes."""
    for note in notes[:most]:
        progress.say(f"note: {note}")
    if len(notes) > most:
        progress.say(f"note: … and {len(notes) - most} more of this kind")


def _notes(reader: ShardReader) -> list[str]:
    notes = reader.notes()
    return [f"{video.rpartition('#')[0]}: {note}" for video, note in sorted(notes.items())]
