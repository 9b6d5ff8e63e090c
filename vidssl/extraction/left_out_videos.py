"""Takes up the videos that a finished run left out, without doing the others again.

A finished artifact is never changed. So a retry is a run of the same identity that makes the next
version: it copies what the finished artifact holds, and tries the videos that this one left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidssl.base.errors import UsageError
from vidssl.extraction.options import ExtractionOptions
from vidssl.extraction.quarantine import quarantine_of
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.run import Run
from vidssl.workspace.workspace import Workspace


def open_video_run(
    workspace: Workspace,
    options: ExtractionOptions,
    kind: str,
    name: str,
    recipe: Mapping[str, Any],
    parents: Mapping[str, Artifact],
) -> tuple[Run, Artifact | None]:
    """Returns the run of a stage over videos, and the artifact whose left-out videos it retries.

    The second is None where there is nothing to retry, or nothing finished: an unfinished run tries
    what it left out in any case.

    Raises:
        UsageError: no artifact can have that name, or two options contradict each other.
    """
    if options.new and options.retry_quarantined:
        raise UsageError(
            "--new does all videos again, also those that were left out: leave "
            "--retry-quarantined away"
        )
    shared = options.part is not None
    run = workspace.open_run(kind, name, recipe, parents, options.new, shared)
    finished = run.finished
    if not options.retry_quarantined or finished is None or not quarantine_of(finished):
        return run, None
    return workspace.open_run(kind, name, recipe, parents, True, shared), finished
