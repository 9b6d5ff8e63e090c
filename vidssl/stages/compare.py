"""`vidssl compare`: which run is best, and is it better than doing nothing?"""

from __future__ import annotations

from dataclasses import dataclass

from vidssl.base.errors import MissingInput
from vidssl.base.progress import SILENT, Progress
from vidssl.report.verdict import Verdict, find_verdict
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class CompareOptions:
    """Options of `vidssl compare`.

    Attributes:
        runs: names or labels of checkpoints; none: all that were measured.
    """

    runs: tuple[str, ...] = ()


def run(workspace: Workspace, options: CompareOptions, progress: Progress = SILENT) -> Verdict:
    """Compares what was measured of some checkpoints, or of all, with each other and baselines.

    Raises:
        VidsslError: there is no such checkpoint, nothing was measured, or a result is damaged.
    """
    chosen = [workspace.resolve("checkpoint", text) for text in options.runs]
    verdict = find_verdict(workspace, chosen)
    if not verdict.splits:
        what = "these runs" if chosen else f"the runs of {workspace.root}"
        raise MissingInput(
            f"nothing was measured of {what} yet: measure a checkpoint with "
            "vidssl retrieve --evaluate or vidssl probe, and then type this again"
        )
    return verdict
