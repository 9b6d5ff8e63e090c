"""What extract-flow and pack share: videos through a pool of workers into shards.

A stage says in a :class:`ShardJob` what is made of a video and where; :func:`carry_out` goes on
where earlier processes stopped, stores what the pool gives, and publishes the artifact. It does so
for all the videos or for one part of them, and the last part publishes
(:mod:`vidssl.extraction.part_folders` has what lies in between).
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
from vidssl.dataset.video import Source, manifest
from vidssl.extraction.part_folders import (
    NothingUsable,
    PartFolder,
    accounted_for,
    gather,
    is_gathered,
    open_part,
    unfinished_parts,
)
from vidssl.extraction.process_pool import Pool
from vidssl.extraction.quarantine import Row, read_quarantine
from vidssl.extraction.video_manifest import Share
from vidssl.shards import ShardReader, ShardWriter
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.results import PartReport, StageResult
from vidssl.workspace.workspace import Run


@dataclass(frozen=True)
class ShardJob:
    """A run over videos: what to do with each and how to store it.

    Attributes:
        title: what the progress bar says.
        views: parameters of each view.
        pool: makes products of the videos that are not done yet: where and how many at once.
        shard_bytes: blobs that make a shard.
        earlier: an artifact with the same parameters, from which videos are copied.
    """

    title: str
    views: Mapping[str, Mapping[str, Any]]
    pool: Pool
    shard_bytes: int
    earlier: Artifact | None = None


def videos_digest(sources: Sequence[Source]) -> str:
    """Returns the digest of which videos there are, the same on every machine."""
    return canonical_digest(manifest(sources))


def reused(artifact: Artifact) -> StageResult:
    """Returns the result of a run that was finished before."""
    left_out, notes = _names(read_quarantine(artifact.path)), _notes(ShardReader(artifact.path))
    return StageResult(artifact, reused=True, quarantined=left_out, notes=notes)


def carry_out(
    run: Run,
    job: ShardJob,
    sources: Sequence[Source],
    progress: Progress,
    share: Share | None = None,
) -> StageResult:
    """Works on the videos that the run has not finished yet and publishes the artifact.

    Args:
        sources: all videos of the run.
        share: those of them that fall to this process, whose run is then a shared one, and which
            publishes only where its part is the last; None: all that is left, whoever began it.

    Raises:
        VidsslError: not one video can be used (nothing is published), the disk is full, or
            another process is at work on this part.
        Interrupted: a signal came; the same command goes on.
    """
    if share is not None:
        return _carry_out_part(run, job, sources, share, progress)
    if is_gathered(run.folder):
        return _gather_and_publish(run, job, sources)
    done = accounted_for(run.folder, job.views)
    quarantine = _work(run.folder, job, sources, done, progress)
    return _gather_and_publish(run, job, sources, quarantine)


def _carry_out_part(
    run: Run, job: ShardJob, sources: Sequence[Source], share: Share, progress: Progress
) -> StageResult:
    with ExitStack() as held:
        with run.alone():
            if (ended := _end_of_others(run, job, sources)) is not None:
                return ended
            own = held.enter_context(open_part(run.folder, share.part))
            before = own.finished
            done = accounted_for(run.folder, job.views, share.part)
        if not before:
            mine = [source for source in sources if source.id in share.ids]
            own.finish(_work(own.path, job, mine, done, progress))
    # The part is finished, and its lock let go: whoever of them comes last here publishes.
    with run.alone():
        if (ended := _end_of_others(run, job, sources)) is not None:
            return ended
        report = _report(run, own, share)
        if not report.unfinished:
            return replace(_gather_and_publish(run, job, sources), part=report)
        return StageResult(None, before, _names(own.quarantine()), part=report)


def _work(
    folder: Path,
    job: ShardJob,
    sources: Sequence[Source],
    done: Collection[str],
    progress: Progress,
) -> list[Row]:
    """Makes shards in `folder` of those sources that are not done, and gives what it left out."""
    quarantine: list[Row] = []
    with ShardWriter(folder, job.views, job.shard_bytes) as writer:
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
            closing(job.pool(left)) as products,
        ):
            for source, product in products:
                if product.record is None:
                    quarantine.append((source.id, source.name, product.reason))
                    task.note(f"left out: {source.name}: {product.reason}")
                else:
                    writer.add(product.record, product.blobs)
                    frames += product.record.frames
                rate = frames / max(time.monotonic() - begin, 1e-9)
                task.advance(1, **{"frames/s": rate})
        writer.finish()
    return quarantine


def _copy_earlier(
    earlier: Artifact, writer: ShardWriter, sources: Sequence[Source], progress: Progress
) -> None:
    """Copies what an earlier artifact has of these videos: a folder that has grown is no new one.

    Raises:
        DamagedShard: the earlier artifact is damaged.
    """
    with ShardReader(earlier.path) as reader:
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


# ── the end of a run


def _gather_and_publish(
    run: Run, job: ShardJob, sources: Sequence[Source], quarantine: Sequence[Row] = ()
) -> StageResult:
    videos = [source.id for source in sources]
    try:
        known = gather(run.folder, job.views, videos, quarantine)
    except NothingUsable:
        run.discard()
        raise
    return _publish(run, known)


def _publish(run: Run, known: Mapping[str, Mapping[str, Any]]) -> StageResult:
    """Turns a work folder in which all is gathered into the artifact."""
    reader = ShardReader(run.folder)
    quarantine = read_quarantine(run.folder)
    summary = _summary(reader, run.folder, len(quarantine))
    notes = _notes(reader)  # before the folder is renamed
    artifact = run.publish(reader.digest, summary, known=known)
    return StageResult(artifact, quarantined=_names(quarantine), notes=notes)


def _end_of_others(run: Run, job: ShardJob, sources: Sequence[Source]) -> StageResult | None:
    """Returns the artifact where other parts came to the end meanwhile, or were killed on the
    way.
    """
    if run.overtaken():
        artifact = run.find_finished()
        if artifact is None:
            raise VidsslError("not one video can be used, as another part of this run has found")
        return reused(artifact)
    if is_gathered(run.folder):
        return _gather_and_publish(run, job, sources)
    return None


def _report(run: Run, own: PartFolder, share: Share) -> PartReport:
    return PartReport(
        part=str(share.part),
        run=f"{run.kind}/{run.name}",
        videos=len(share.ids) - len(own.quarantine()),
        unfinished=unfinished_parts(run.folder, share.part),
    )


def _names(quarantine: Sequence[Row]) -> list[tuple[str, str]]:
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


def tell(notes: Sequence[str], progress: Progress, most: int = 5) -> None:
    """Says the first few notes."""
    for note in notes[:most]:
        progress.say(f"note: {note}")
    if len(notes) > most:
        progress.say(f"note: … and {len(notes) - most} more of this kind")


def _notes(reader: ShardReader) -> list[str]:
    notes = reader.notes()
    return [f"{video.rpartition('#')[0]}: {note}" for video, note in sorted(notes.items())]
