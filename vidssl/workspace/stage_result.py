"""Holds the result of a stage: its artifact, notes for the user, or the plan of a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vidssl.workspace.artifacts import Artifact


@dataclass(frozen=True)
class PartReport:
    """The result of one part of a run that is divided among processes.

    Attributes:
        part: its number and the number of parts, such as 3/8.
        run: KIND/NAME of the artifact.
        videos: number of videos finished in this part.
        unfinished: number of parts not finished yet; 0: this was the last part, and published.
    """

    part: str
    run: str
    videos: int
    unfinished: int


@dataclass(frozen=True)
class StageResult:
    """The artifact that a stage made or found.

    Attributes:
        artifact: None for a dry run, and for a part that is not the last.
        reused: whether the artifact was finished before, so that nothing was done.
        quarantined: (video, reason) for each video that was left out.
        notes: sentences that the user should see.
        plan: for a dry run, what would be done, as plain data; after the trial of a training run
            also its forecast (`vidssl.training.trial_steps.Forecast`), under "forecast".
        part: the result of one part, if the run is divided.
        in_vain: whether videos that had been left out were tried again, and none can be used.
    """

    artifact: Artifact | None
    reused: bool = False
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: Mapping[str, Any] | None = None
    part: PartReport | None = None
    in_vain: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        quarantined = [{"video": v, "reason": r} for v, r in self.quarantined]
        if self.artifact is None and self.part is not None:
            part = {"part": self.part.part, "of": self.part.run, "videos": self.part.videos}
            part |= {"unfinished_parts": self.part.unfinished, "reused": self.reused}
            return part | {"quarantined": quarantined, "notes": self.notes}
        if self.artifact is None:
            return {"plan": self.plan, "notes": self.notes}
        return {
            "artifact": self.artifact.label,
            "path": str(self.artifact.path),
            "digest": self.artifact.digest,
            "reused": self.reused,
            "summary": dict(self.artifact.summary),
            "quarantined": quarantined,
            "notes": self.notes,
        }
