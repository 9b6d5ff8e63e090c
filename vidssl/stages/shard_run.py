"""What extract-flow and pack share: videos through a pool of workers into shards."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidssl.artifacts import Artifact, Run, atomic_write, canonical_digest
from vidssl.errors import VidsslError
from vidssl.progress import Progress
from vidssl.shards import ShardReader, ShardWriter
from vidssl.stages.result import StageResult
from vidssl.stages.video_pool import Pool
from vidssl.video import Source, manifest

QUARANTINE_FILE = "quarantine.csv"


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
    """Gives the digest of which videos there are, the same on every machine."""
    return canonical_digest(manifest(sources))


def reused(artifact: Artifact) -> StageResult:
    """Gives the result of a run that was finished before."""
    quarantined = [(name, reason) for _, name, reason in read_quarantine(artifact.path)]
    return StageResult(artifact, reused=True, quarantined=quarantined, notes=_notes(artifact.path))


def carry_out(
    run: Run, job: ShardJob, sources: Sequence[Source], progress: Progress
) -> StageResult:
    """Works on the videos that the run has not finished yet and publishes the artifact.

    Raises:
        VidsslError: not one video can be used (nothing is published), or the disk is full.
        Interrupted: a signal came; the same command goes on.
    """
    quarantine: list[tuple[str, str, str]] = []
    with ShardWriter(run.folder, job.views, job.shard_bytes) as writer:
        if job.earlier is not None:
            _copy_earlier(job.earlier, writer, sources, progress)
        left = [source for source in sources if source.id not in writer.digests]
        if len(left) < len(sources):
            progress.say(f"{len(sources) - len(left)} of {len(sources)} videos were done before")
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
        if not writer.digests:
            run.discard()
            raise VidsslError(_nothing(quarantine))
        digest = writer.finish()
    write_quarantine(run.folder, quarantine)
    artifact = run.publish(digest, _summary(run.folder, len(quarantine)))
    names = sorted((name, reason) for _, name, reason in quarantine)
    return StageResult(artifact, quarantined=names, notes=_notes(artifact.path))


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
        progress.say(f"{copied} videos are copied from {earlier.label}, made with the same options")


def _nothing(quarantine: Sequence[tuple[str, str, str]]) -> str:
    _, name, reason = quarantine[0]
    if len(quarantine) == 1:
        return f"{name} cannot be used: {reason}"
    return f"not one of {len(quarantine)} videos can be used; the first, {name}: {reason}"


def _summary(folder: Path, quarantined: int) -> dict[str, Any]:
    reader = ShardReader(folder)
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


def _notes(folder: Path) -> list[str]:
    notes = ShardReader(folder).notes()
    return [f"{video.rpartition('#')[0]}: {note}" for video, note in sorted(notes.items())]


# ── quarantine


def write_quarantine(folder: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Writes quarantine.csv: id, video, reason of each video that was left out."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "video", "reason"))
    table.writerows(sorted(rows))
    atomic_write(folder / QUARANTINE_FILE, text.getvalue().encode())


def read_quarantine(folder: Path) -> list[tuple[str, str, str]]:
    """Reads quarantine.csv: (id, video, reason)."""
    with (folder / QUARANTINE_FILE).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [(video, name, reason) for video, name, reason in rows]
