"""Runs the shard job of extract-flow or extract-view, or describes it for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vidssl.base.progress import Progress
from vidssl.dataset.video import Source
from vidssl.extraction.dry_run import describe_dry_run
from vidssl.extraction.options import ExtractionOptions
from vidssl.extraction.part_videos import PartVideos
from vidssl.extraction.shard_job import ShardJob, reused_result, run_shard_job, show_notes
from vidssl.workspace.run import Run
from vidssl.workspace.run_diff import report_other_runs
from vidssl.workspace.stage_result import StageResult


def run_or_describe(
    run: Run,
    job: ShardJob,
    sources: Sequence[Source],
    part_videos: PartVideos | None,
    options: ExtractionOptions,
    progress: Progress,
    *,
    workers: int | str | None,
    more: Mapping[str, Any],
    before: Callable[[], object] = lambda: None,
) -> StageResult:
    """Returns the result of a run: of an earlier one if it is finished, or what it would do.

    Args:
        workers: for a dry run, how many processes, or the address of a cluster.
        more: for a dry run, further entries of the plan.
        before: called before the first video; its error ends the run once, not once per video.
    """
    if options.dry_run:
        views, earlier = job.views, job.earlier
        return describe_dry_run(run, views, sources, part_videos, workers, progress, earlier, more)
    report_other_runs(run, progress)
    with run as opened:
        if opened.finished is not None:
            return reused_result(opened.finished)
        before()
        result = run_shard_job(opened, job, sources, progress, part_videos)
    show_notes(result.notes, progress)
    return result
