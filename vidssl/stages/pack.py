"""`vidssl pack`: stores the views of a folder of video in shards, with labels, groups and splits.

It makes two artifacts: the pack (frames) and the annotations (labels, groups, splits). If the same
videos are packed with other labels, only the annotations are new.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidssl.base.errors import UsageError
from vidssl.base.files import file_digest
from vidssl.base.locks import file_lock
from vidssl.base.progress import SILENT, Progress
from vidssl.dataset.annotations import ANNOTATIONS_FILE, Annotations, write_annotations
from vidssl.dataset.labels import Labelling, check_labelling, label_videos
from vidssl.dataset.video import Source
from vidssl.extraction.derived_views import DerivedView, check_views, choose_derived_views
from vidssl.extraction.dry_run import describe_dry_run
from vidssl.extraction.left_out_videos import open_video_run
from vidssl.extraction.options import ExtractionOptions
from vidssl.extraction.part_videos import PartVideos, find_part_videos
from vidssl.extraction.pool import check_pool, choose_pool
from vidssl.extraction.segment_pack import (
    NONE,
    describe_segments,
    newer_segments,
    rows_of_segments,
    segment_pack,
    segment_seconds,
)
from vidssl.extraction.shard_job import (
    ShardJob,
    reused_result,
    run_shard_job,
    show_notes,
    videos_digest,
)
from vidssl.extraction.video_frames import pack_video
from vidssl.shards import open_shards
from vidssl.views.codecs import get_codec
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.run_diff import report_other_runs
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

# The centre crop of the published evaluation, 224 of 240 pixels, is 134 of 144: the 128 pixels
# that a network sees are never enlarged.
RGB_SIZE = 144


@dataclass(frozen=True)
class Pack(ExtractionOptions):
    """Options of `vidssl pack`, beside those of all extraction.

    Attributes:
        videos: a folder, a video file, or a text file of paths.
        views: those to pack; None: rgb, and every derived view that exists of these videos.
        size: short side of RGB frames; None: the video's.
        quality: of RGB's JPEG, 1 to 100.
        derived: artifacts of derived views, including flow; for other views the one that holds
            most of these videos is taken.
        labels: "folders", "none", or a CSV file (path,label[,group][,split columns]).
        group_pattern: see :func:`vidssl.dataset.labels.label_videos`.
        segments: "none", or about how many seconds long the segments of a video are: each is then
            a video of its own to all later stages.
        name: of both artifacts.
    """

    videos: Path
    views: tuple[str, ...] | None = None
    size: int | None = RGB_SIZE
    quality: int = 90
    derived: tuple[str, ...] = ()
    labels: str = "folders"
    group_pattern: str | None = None
    segments: str = NONE
    name: str = "main"


@dataclass(frozen=True)
class PackResult(StageResult):
    """The result of pack: the pack as `artifact`, and its annotations.

    Attributes:
        labelling: one line on labels, groups and splits, from where, and what was not used.
    """

    annotations: Artifact | None = None
    labelling: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found = super().as_dict()
        if self.annotations is not None:
            found["annotations"] = self.annotations.label
            found["labelling"] = self.labelling
        return found


def run(workspace: Workspace, config: Pack, progress: Progress = SILENT) -> PackResult:
    """Packs the videos and annotates the pack; goes on where an earlier attempt stopped.

    Raises:
        VidsslError: there is no video, none can be used, labels are wrong, or the disk is full.
        MissingInput: a view is asked for that was not made yet.
        Interrupted: a signal came; finished videos are kept.
    """
    check_name(config.name)
    check_views(config.views)
    check_labelling(config.labels, config.group_pattern)
    views = {"rgb": rgb_params(config)}
    seconds = segment_seconds(config.segments)
    check_pool(config.dask)
    sources, part_videos = find_part_videos(
        workspace, config.videos, config.part, progress, config.dry_run
    )
    # Before the long work, so that a mistake in the labels is found within a second.
    label_videos(sources, config.labels, config.group_pattern)
    derived = choose_derived_views(
        workspace, config.videos, sources, config.views, config.derived, progress
    )
    for view, artifact in derived.items():
        views[view] = dict(open_shards(artifact).views[view])
    recipe = {"stage": "pack", "views": views, "videos": videos_digest(sources)}
    if config.dry_run:
        labels = {view: artifact.label for view, artifact in derived.items()}
        more = {"derived": labels, "labels": config.labels}
        if seconds is not None:
            more["segments"] = config.segments
        prepared, retried = open_video_run(workspace, config, "pack", config.name, recipe, derived)
        who = config.dask or config.workers
        planned = describe_dry_run(
            prepared, views, sources, part_videos, who, progress, retried, more
        )
        return PackResult(artifact=None, plan=planned.plan)
    packed = _pack(workspace, config, sources, part_videos, derived, views, recipe, progress)
    if packed.artifact is None:  # not the last part: that one annotates
        return PackResult(
            None, reused=packed.reused, quarantined=packed.quarantined, part=packed.part
        )
    annotations, labelling = _annotate(workspace, config, sources, packed.artifact)
    newest, made = workspace.newest("pack"), packed.artifact
    if seconds is not None:
        made = segment_pack(workspace, config.name, packed.artifact, seconds)
        annotations, _ = _annotate(workspace, config, sources, packed.artifact, made)
    notes = labelling.notes + _notes_on_segments(workspace, packed.artifact, made)
    show_notes([] if packed.reused else packed.notes, progress)
    show_notes(notes, progress, most=len(notes))  # each is of another kind
    progress.say(labelling.summary)
    return PackResult(
        artifact=made,
        reused=packed.reused and (seconds is None or made == newest),
        quarantined=packed.quarantined,
        notes=packed.notes + notes,
        part=packed.part,
        in_vain=packed.in_vain,
        annotations=annotations,
        labelling=labelling.summary,
    )


def _notes_on_segments(workspace: Workspace, frames: Artifact, made: Artifact) -> list[str]:
    if made == frames:
        return newer_segments(workspace, frames)
    return describe_segments(open_shards(made))


def rgb_params(config: Pack) -> dict[str, Any]:
    """Returns all that determines the stored RGB frames; recorded with them.

    Raises:
        UsageError: a size or quality that makes no sense.
    """
    if config.size is not None and config.size < 16:
        raise UsageError(f"--size {config.size} is too small for a picture: give 16 or more")
    return {"codec": get_codec(f"jpeg{config.quality}").name, "stored_size": config.size}


# ── frames ───────────────────────────────────────────────────────────────────────────────────


def _pack(
    workspace: Workspace,
    config: Pack,
    sources: Sequence[Source],
    part_videos: PartVideos | None,
    derived: Mapping[str, Artifact],
    views: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
    progress: Progress,
) -> StageResult:
    stored = {view: DerivedView.open(artifact) for view, artifact in derived.items()}
    function = partial(pack_video, rgb=views["rgb"], derived=stored, bounds=config.bounds)
    prepared, retried = open_video_run(workspace, config, "pack", config.name, recipe, derived)
    job = ShardJob(
        title="pack",
        views=views,
        pool=choose_pool(function, config.workers, config.dask),
        shard_bytes=config.shard_bytes,
        earlier=retried,
        retry=config.retry_quarantined,
        retried=retried,
    )
    report_other_runs(prepared, progress)
    with prepared as opened:
        if opened.finished is not None:
            return reused_result(opened.finished)
        return run_shard_job(opened, job, sources, progress, part_videos)


# ── annotations ──────────────────────────────────────────────────────────────────────────────


def _annotate(
    workspace: Workspace,
    config: Pack,
    sources: Sequence[Source],
    frames: Artifact,
    segments: Artifact | None = None,
) -> tuple[Artifact, Labelling]:
    """Publishes the annotations of the packed videos, unless the newest are the same.

    Args:
        segments: a pack of segments of the videos, if these are annotated.
    """
    pack, reader = segments or frames, open_shards(frames)
    packed = [source for source in sources if reader.find(source.id) is not None]
    labelling = label_videos(packed, config.labels, config.group_pattern)
    table = config.labels not in ("folders", "none")
    recipe = {
        "stage": "annotate",
        "labels": Path(config.labels).name if table else config.labels,
        "labels_sha256": file_digest(Path(config.labels)) if table else None,
        "group_pattern": config.group_pattern,
    }
    instances = open_shards(pack)
    rows = labelling.rows if segments is None else rows_of_segments(instances, labelling.rows)
    digest = _digest_of(rows, labelling.split_columns)
    # With a lock: several parts of a pack may come here at once.
    with file_lock(workspace.root / ".annotations.lock"):
        # Training takes the newest, so older labels that are given again are published again.
        newest = workspace.newest("annotations", lambda a: a.parents.get("pack") == pack.digest)
        with workspace.open_run("annotations", config.name, recipe, {"pack": pack}) as opened:
            # An earlier version may have read the same table or folders otherwise.
            finished = opened.finished
            if finished is not None and newest == finished and finished.digest == digest:
                return finished, labelling
        with workspace.open_run("annotations", config.name, recipe, {"pack": pack}, True) as opened:
            write_annotations(opened.folder, rows, labelling.split_columns)
            ids = [instances.video_id(v) for v in range(len(instances))]
            found = Annotations.load(opened.folder, ids)
            return opened.publish(digest, _summary(found)), labelling


def _digest_of(rows: Sequence[Mapping[str, str]], split_columns: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write_annotations(Path(folder), rows, split_columns)
        return file_digest(Path(folder) / ANNOTATIONS_FILE)


def _summary(found: Annotations) -> dict[str, Any]:
    return {
        "videos": len(found),
        "labelled": int((found.labels >= 0).sum()),
        "classes": len(found.classes),
        "groups": len(found.group_names),
        "splits": {name: dict(Counter(part.tolist())) for name, part in found.splits.items()},
    }
