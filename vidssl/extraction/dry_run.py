"""Describes a run of extract-flow, extract-view or pack before it is started (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidssl.base.cores_and_memory import cores
from vidssl.base.progress import Progress
from vidssl.dataset.video import Source
from vidssl.extraction.part_folders import finished_ids
from vidssl.extraction.part_videos import PartVideos
from vidssl.extraction.video_lengths import video_lengths
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.run import Run
from vidssl.workspace.stage_result import StageResult


def describe_dry_run(
    run: Run,
    views: Mapping[str, Mapping[str, Any]],
    sources: Sequence[Source],
    part_videos: PartVideos | None,
    workers: int | str | None,
    progress: Progress,
    earlier: Artifact | None = None,
    more: Mapping[str, Any] | None = None,
) -> StageResult:
    """Returns what a run would do: videos, minutes, what is done already, workers, parameters.

    Args:
        run: the run that would start or go on; nothing is written.
        views: parameters of each view.
        part_videos: the videos of this process, where several divide the run; None: all.
        workers: how many processes, or the address of a cluster; None: one per core.
        earlier: an artifact from which videos would be copied.
        more: further entries of the plan.
    """
    seconds = _seconds(sources, progress)
    done = _done(run, views, sources)
    copied = _copied(earlier, sources) - done if run.finished is None else set()
    ids = {source.id for source in sources} if part_videos is None else set(part_videos.ids)
    plan: dict[str, Any] = {
        "stage": run.recipe["stage"],
        "makes": f"{run.kind}/{run.name}" if run.finished is None else "nothing, it is finished",
        "videos": len(sources),
        "minutes": round(sum(seconds) / 60, 2),  # according to the files' headers
        "done_before": len(done) if run.finished is None else run.finished.label,
    }
    if copied and earlier is not None:
        plan["copied_from"] = {earlier.label: len(copied)}
    plan["left"] = len(ids - done - copied)
    plan["workers"] = workers or cores()
    plan |= _describe_part(part_videos) | {"views": views} | dict(more or {})
    return StageResult(None, plan=plan)


def _describe_part(part_videos: PartVideos | None) -> dict[str, Any]:
    if part_videos is None:
        return {}
    return {"part": str(part_videos.part), "videos_of_part": len(part_videos.ids)}


def _seconds(sources: Sequence[Source], progress: Progress) -> list[float]:
    with progress.task("look at headers", len(sources), "video") as task:
        return video_lengths([source.path for source in sources], task.advance)


def _done(run: Run, views: Mapping[str, Mapping[str, Any]], sources: Sequence[Source]) -> set[str]:
    if run.finished is not None:
        return {source.id for source in sources}
    return finished_ids(run.folder, views) if run.started else set()


def _copied(earlier: Artifact | None, sources: Sequence[Source]) -> set[str]:
    if earlier is None:
        return set()
    with open_shards(earlier) as reader:
        return {source.id for source in sources if reader.find(source.id) is not None}
