"""Lists what a workspace holds: lineage, recipes with their commands, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vidssl.base.typed_settings import flat
from vidssl.extraction.quarantine import quarantine_of
from vidssl.report.training_command import training_command
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact

MOST_LISTED = 200


@dataclass(frozen=True)
class LineageRow:
    """One artifact in the tree of lineage.

    Attributes:
        depth: how far below a root.
        remarks: further parents.
        stale: why it is stale; none: it is current.
        problems: files that are missing, or of another size.
    """

    depth: int
    label: str
    headline: str
    remarks: list[str]
    stale: list[str]
    problems: list[str]


@dataclass(frozen=True)
class RunRecipe:
    """One checkpoint's settings, and the command that trains it again.

    Attributes:
        settings: (field, value) of all of them.
    """

    label: str
    command: str
    settings: list[tuple[str, str]]


@dataclass(frozen=True)
class LeftOut:
    """A video that a stage left out, or a note on one that it took."""

    where: str
    video: str
    reason: str


def run_recipes(artifacts: Iterable[Artifact]) -> list[RunRecipe]:
    """Returns the recipe of each checkpoint, with its command."""
    artifacts = list(artifacts)
    known = {artifact.digest: artifact for artifact in artifacts}
    return [
        RunRecipe(
            each.label,
            training_command(each, known),
            [(name, _shown(value)) for name, value in flat(each.recipe)],
        )
        for each in artifacts
        if each.kind == "checkpoint"
    ]


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def left_out(artifacts: Iterable[Artifact]) -> tuple[list[LeftOut], list[LeftOut]]:
    """Returns the videos that were quarantined, and the notes on videos that were taken.

    Raises:
        VidsslError: a set of shards cannot be opened.
    """
    quarantined, noted = [], []
    for artifact in artifacts:
        if artifact.kind not in ("flow", "view", "pack"):
            continue
        for _, video, reason in quarantine_of(artifact):
            quarantined.append(LeftOut(artifact.label, video, reason))
        with open_shards(artifact) as reader:
            noted += [LeftOut(artifact.label, v, said) for v, said in reader.notes().items()]
    return quarantined[:MOST_LISTED], noted[:MOST_LISTED]
