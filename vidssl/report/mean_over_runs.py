"""Averages runs that differ in nothing but their split and their seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidssl.report.measured_rows import BASELINE, Place, Row
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.parent_roles import TEACHERS, role_of

VARIED = ("seed", "split", "split_seed")  # what may differ


@dataclass(frozen=True)
class MeanRow:
    """One figure, averaged over runs.

    Attributes:
        name: of the run that was measured first; the others are like it.
        runs: "NAME on SPLIT" of each.
        mean: of the figure, from 0 to 1.
        error: one standard error of the mean, from the spread over runs.
        chance: averaged in the same way.
    """

    name: str
    kind: str
    figure: str
    runs: list[str]
    mean: float
    error: float
    chance: float


def means_over_runs(
    rows: Iterable[tuple[Place, Row]], known: Mapping[str, Artifact]
) -> list[MeanRow]:
    """Returns the mean of each figure over runs of one kind, where there are two or more.

    Args:
        known: {digest: artifact} of the workspace.
    """
    alike: dict[tuple[str, str], list[tuple[Place, Row]]] = {}
    for place, row in rows:
        alike.setdefault((place.pack, _family(row, known)), []).append((place, row))
    found = []
    for members in alike.values():
        names = dict.fromkeys(name for _, row in members for name in row.figures)
        for figure in names:
            having = [(place, row) for place, row in members if figure in row.figures]
            if len(having) > 1:
                found.append(_mean(figure, having))
    return found


def _mean(figure: str, having: list[tuple[Place, Row]]) -> MeanRow:
    shares = np.array([row.figures[figure].share for _, row in having])
    first = having[0][1]
    return MeanRow(
        name=first.name,
        kind=first.kind,
        figure=figure,
        runs=[f"{row.name} on {place.split}" for place, row in having],
        mean=float(shares.mean()),
        error=float(shares.std(ddof=1) / math.sqrt(len(shares))),
        chance=float(np.mean([row.chance[figure] for _, row in having])),
    )


def _family(row: Row, known: Mapping[str, Artifact]) -> str:
    """Returns what all runs of one kind share."""
    if row.kind == BASELINE:
        return f"baseline {row.name.partition(',')[0]}"
    whitened = row.name.endswith("whitened")
    return canonical_digest(
        [list(row.views), whitened, [_run_family(each, known) for each in row.checkpoints]]
    )


def _run_family(run: Artifact, known: Mapping[str, Artifact], depth: int = 0) -> Any:
    """Returns a checkpoint's recipe and those that it learned from, without splits and seeds."""
    recipe = {name: value for name, value in run.recipe.items() if name not in VARIED}
    before = {
        role: _run_family(known[digest], known, depth + 1)
        for role, digest in run.parents.items()
        if role_of(role) in TEACHERS and digest in known and depth < len(known)
    }
    return [recipe, before]
