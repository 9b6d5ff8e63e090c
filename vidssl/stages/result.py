"""What a stage gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vidssl.artifacts import Artifact


@dataclass(frozen=True)
class StageResult:
    """The artifact a stage made or found.

    Attributes:
        artifact: None for a dry run.
        reused: the artifact was finished before; nothing was done.
        quarantined: (video, reason) for each video left out.
        notes: sentences the user should see.
        plan: for a dry run, what would be done, as plain data.
    """

    artifact: Artifact | None
    reused: bool = False
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Gives the result as plain data, for --json."""
        if self.artifact is None:
            return {"plan": self.plan, "notes": self.notes}
        return {
            "artifact": self.artifact.label,
            "path": str(self.artifact.path),
            "digest": self.artifact.digest,
            "reused": self.reused,
            "summary": dict(self.artifact.summary),
            "quarantined": [{"video": v, "reason": r} for v, r in self.quarantined],
            "notes": self.notes,
        }
