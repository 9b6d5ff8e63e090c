"""What a dry run of extract-flow, extract-view and pack says: how much there is, and is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidssl.base.progress import Progress
from vidssl.base.resources import cores
from vidssl.dataset.video import Source, duration, map_files
from vidssl.extraction.part_folders import accounted_for
from vidssl.extraction.video_manifest import Share, share_plan
from vidssl.shards import ShardReader
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Run


def plan_run(
    run: Run,
    views: Mapping[str, Mapping[str, Any]],
    sources: Sequence[Source],
    share: Share | None,
    workers: int | str | None,
    progress: Progress,
    earlier: Artifact | None = None,
    more: Mapping[str, Any] | None = None,
) -> StageResult:
    """Returns a dry run's plan: videos and minutes, what is done already, who works, all
    parameters.

    Args:
        run: that would go on; nothing is written.
        workers: how many processes, or the address of a cluster; None: one per core.
        earlier: an artifact from which videos would be copied.
        more: what else the stage has to say.
    """
    seconds = _seconds(sources, progress)
    done = _done(run, views, sources)
    copied = _copied(earlier, sources) - done if run.finished is None else set()
    ids = {source.id for source in sources} if share is None else set(share.ids)
    plan: dict[str, Any] = {
        "stage": run.recipe["stage"],
        "makes": f"{run.kind}/{run.name}" if run.finished is None else "nothing, it is finished",
        "videos": len(sources),
        "minutes": round(sum(seconds) / 60, 2),  # as the files' headers say
        "done_before": len(done) if run.finished is None else run.finished.label,
    }
    if copied and earlier is not None:
        plan["copied_from"] = {earlier.label: len(copied)}
    plan["left"] = len(ids - done - copied)
    plan["workers"] = workers or cores()
    return StageResult(None, plan=plan | share_plan(share) | {"views": views} | dict(more or {}))


def _seconds(sources: Sequence[Source], progress: Progress) -> list[float]:
    seconds = []
    with progress.task("look at headers", len(sources), "video") as task:
        for each in map_files(duration, [source.path for source in sources]):
            seconds.append(each)
            task.advance()
    return seconds


def _done(run: Run, views: Mapping[str, Mapping[str, Any]], sources: Sequence[Source]) -> set[str]:
    if run.finished is not None:
        return {source.id for source in sources}
    return accounted_for(run.folder, views) if run.started else set()


def _copied(earlier: Artifact | None, sources: Sequence[Source]) -> set[str]:
    if earlier is None:
        return set()
    with ShardReader(earlier.path) as reader:
        return {source.id for source in sources if reader.find(source.id) is not None}
