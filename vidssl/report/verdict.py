"""Compares all that was measured in a workspace, split by split: what beats what beyond noise.

The terminal's table and the page of `vidssl report` both come from here.

Legend: Q test videos, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vidssl.evaluation.paired_bootstrap import Bootstrap, PairedDifference
from vidssl.evaluation.split_to_evaluate import too_few
from vidssl.recipes.recipe import recipe_card
from vidssl.recipes.recipe_file import recipe_names
from vidssl.report.comparable_runs import unlike_runs
from vidssl.report.mean_over_runs import MeanRow, means_over_runs
from vidssl.report.measured_rows import (
    LEARNED,
    PAIRED,
    Place,
    Row,
    measured_rows,
)
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class Comparison:
    """One row against another, or against chance, in one figure.

    Attributes:
        figure: one of :data:`vidssl.report.measured_rows.PAIRED`.
        other: name of the other row; None: chance.
    """

    figure: str
    row: str
    other: str | None
    against_learned: bool
    result: PairedDifference

    @property
    def above(self) -> bool:
        """Whether the row is better beyond noise."""
        return self.result.beyond_noise and self.result.difference > 0


@dataclass(frozen=True)
class SplitVerdict:
    """All rows on one split of one pack, and how they compare.

    Attributes:
        rows: learned ones first, the best first.
        chance: of each figure.
        comparisons: of each learned row with chance and with every other row.
        paper: {name of a row: what the paper reports of its recipe}.
        warnings: sentences on what makes figures hard to compare.
    """

    place: Place
    rows: list[Row]
    chance: Mapping[str, float]
    comparisons: list[Comparison]
    paper: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def between(self, figure: str, row: str, other: str | None) -> Comparison | None:
        """Returns the comparison of two rows in one figure, None where both were not measured."""
        wanted = (figure, row, other)
        for each in self.comparisons:
            if (each.figure, each.row, each.other) == wanted:
                return each
        return None

    @property
    def title(self) -> str:
        """Names the split and its pack."""
        seed = f", seed {self.place.split_seed}" if self.place.split_seed is not None else ""
        return f"split {self.place.split}{seed} of {self.place.pack}"


@dataclass(frozen=True)
class Verdict:
    """What a workspace's runs reached.

    Attributes:
        splits: those with most learned rows first.
        means: over splits and seeds, of runs that differ in nothing else.
        unmeasured: checkpoints of which nothing was measured.
    """

    splits: list[SplitVerdict]
    means: list[MeanRow]
    unmeasured: list[str]


def find_verdict(workspace: Workspace, chosen: Sequence[Artifact] = ()) -> Verdict:
    """Compares what was measured of some checkpoints, or of all, and of every baseline.

    Args:
        chosen: checkpoints; none: all.

    Raises:
        VidsslError: a result is missing or damaged.
    """
    artifacts, _ = workspace.scan()
    known = {artifact.digest: artifact for artifact in artifacts}
    wanted = {artifact.digest for artifact in chosen}
    splits = []
    measured: set[str] = set()
    for place, rows in measured_rows(artifacts).items():
        kept = [row for row in rows if _is_wanted(row, wanted)]
        measured |= {each.digest for row in kept for each in row.checkpoints}
        if kept and (not wanted or any(row.kind == LEARNED for row in kept)):
            splits.append(_compare(place, kept, known))
    splits.sort(key=lambda s: -sum(row.kind == LEARNED for row in s.rows))
    candidates = chosen or [a for a in artifacts if a.kind == "checkpoint"]
    unmeasured = [
        each.label
        for each in candidates
        if each.digest not in measured and each.recipe.get("stage") != "finetune"
    ]
    return Verdict(splits, means_over_runs(splits_rows(splits), known), unmeasured)


def splits_rows(splits: Sequence[SplitVerdict]) -> list[tuple[Place, Row]]:
    """Returns each row with its place."""
    return [(split.place, row) for split in splits for row in split.rows]


def _is_wanted(row: Row, wanted: set[str]) -> bool:
    return not wanted or row.kind != LEARNED or any(c.digest in wanted for c in row.checkpoints)


def _compare(place: Place, rows: list[Row], known: Mapping[str, Artifact]) -> SplitVerdict:
    rows = sorted(rows, key=lambda row: (row.kind != LEARNED, -_leading(row)))
    found: list[Comparison] = []
    warnings = unlike_runs(rows, known)
    for figure in PAIRED:
        compared, missing = _paired(figure, rows, known.get(place.annotations))
        found += compared
        warnings += missing
    warnings += too_few(max((row.tests for row in rows), default=0))
    chance = {name: value for row in rows for name, value in row.chance.items()}
    return SplitVerdict(place, rows, chance, found, _paper(rows), warnings)


def _leading(row: Row) -> float:
    """Returns the figure by which rows are ordered: the first that was measured."""
    return next((row.figures[name].share for name in PAIRED if name in row.figures), -1.0)


def _paired(
    figure: str, rows: Sequence[Row], annotations: Artifact | None
) -> tuple[list[Comparison], list[str]]:
    """Compares all rows in one figure over the same test videos; and says what cannot be."""
    measured = [row for row in rows if figure in row.outcomes]
    if not measured or not any(row.kind == LEARNED for row in measured):
        return [], []
    first = measured[0].outcomes[figure].keys()
    alike = [row for row in measured if row.outcomes[figure].keys() == first]
    notes = [
        f"{row.name} was tested on other videos ({figure}): it is compared with none"
        for row in measured
        if row not in alike
    ]
    videos = sorted(first)
    hit_QR = np.array([[row.outcomes[figure][v] for row in alike] for v in videos])
    drawn = Bootstrap(hit_QR, _groups(videos, annotations))
    found = []
    for number, row in enumerate(alike):
        if row.kind != LEARNED:
            continue
        over_chance = drawn.above(number, row.chance[figure])
        found.append(Comparison(figure, row.name, None, False, over_chance))
        found += [
            Comparison(figure, row.name, other.name, other.kind == LEARNED,
                       drawn.between(number, place))
            for place, other in enumerate(alike) if other is not row
        ]  # fmt: skip
    return found, notes


def _groups(videos: Sequence[str], annotations: Artifact | None) -> np.ndarray:
    """Returns the group of each video; each is its own where the annotations are gone."""
    if annotations is None:
        return np.arange(len(videos))
    return read_annotations(annotations, videos).groups


def _paper(rows: Sequence[Row]) -> dict[str, str]:
    """Returns what the papers report of the recipes of the rows, where they name a figure."""
    shipped, found = recipe_names(), {}
    for row in rows:
        recipes = dict.fromkeys(each.recipe.get("recipe") for each in row.checkpoints)
        told = [recipe_card(str(name)).reports for name in recipes if name in shipped]
        told = [said for said in told if said]
        if told:
            found[row.name] = "; ".join(told)
    return found
