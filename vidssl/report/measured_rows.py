"""Gathers what was measured in a workspace: one row for each encoder and baseline on a split.

Everything is read from retrieval, probe and finetune artifacts; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vidssl.dataset.splits import SEEDED
from vidssl.evaluation import classification, recall
from vidssl.evaluation.outcomes import read_answers
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_views
from vidssl.workspace.parent_roles import START, role_of

NEAREST, PROBE, FINETUNE = "R@1", "linear probe", "finetune"
PAIRED = (NEAREST, PROBE, FINETUNE)  # the figures that have an outcome for each test video
SHOWN_KS = (1, 5, 10)
LEARNED, BASELINE = "learned", "baseline"


@dataclass(frozen=True)
class Figure:
    """One figure of one row: a share from 0 to 1 and one standard error of it.

    Attributes:
        error: None where it is not known.
        artifact: from which it was read.
    """

    share: float
    error: float | None
    artifact: str


@dataclass(frozen=True)
class Place:
    """What figures must share to be compared: the videos, their labels and the split."""

    pack: str
    annotations: str
    split: str
    split_seed: int | None


@dataclass(frozen=True)
class Row:
    """One encoder, several that are averaged, or one baseline, on one split.

    Attributes:
        name: as shown; unique on its split.
        kind: :data:`LEARNED` or :data:`BASELINE`.
        checkpoints: that it comes of, none for a baseline.
        figures: {"R@1": …, "mAP": …, "linear probe": …}; what was not measured is missing.
        chance: of the same names.
        outcomes: {name in :data:`PAIRED`: {test video: whether it was right}}.
    """

    name: str
    kind: str
    checkpoints: tuple[Artifact, ...] = ()
    views: tuple[str, ...] = ()
    seed: int | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    tests: int = 0
    gallery: int = 0


def measured_rows(artifacts: Iterable[Artifact]) -> dict[Place, list[Row]]:
    """Returns the rows of each split on which something was measured; newer figures win.

    Args:
        artifacts: of the workspace, oldest first.

    Raises:
        VidsslError: a result is missing or damaged.
    """
    known = {artifact.digest: artifact for artifact in artifacts}
    found: dict[Place, dict[Any, Row]] = {}
    for artifact in known.values():
        if artifact.kind not in ("retrieval", "probe", "finetune"):
            continue
        row, pack = _row_of(artifact, known)
        seed = artifact.recipe.get("split_seed")
        split = str(artifact.recipe.get("split"))
        place = Place(
            pack, artifact.parents.get("annotations", ""), split, seed if split == SEEDED else None
        )
        rows = found.setdefault(place, {})
        key = (tuple(c.digest for c in row.checkpoints), row.views, row.name, row.seed)
        rows[key] = _joined(rows[key], row) if key in rows else row
    return {place: _told_apart(list(rows.values())) for place, rows in found.items()}


def _joined(old: Row, new: Row) -> Row:
    return replace(
        new,
        figures={**old.figures, **new.figures},
        chance={**old.chance, **new.chance},
        outcomes={**old.outcomes, **new.outcomes},
        tests=max(old.tests, new.tests),
        gallery=max(old.gallery, new.gallery),
    )


def _row_of(artifact: Artifact, known: Mapping[str, Artifact]) -> tuple[Row, str]:
    """Returns the row with the figures of one artifact, and the label of its pack."""
    checkpoints = tuple(
        _measured(known[digest], known)
        for role, digest in artifact.parents.items()
        if role_of(role) == "checkpoint" and digest in known
    )
    answers = {each.video: each.right for each in read_answers(artifact)}
    if artifact.kind == "retrieval":
        report = recall.read_report(artifact)
        row = Row(
            report.features, LEARNED, checkpoints,
            figures={
                f"R@{each.k}": Figure(each.recall, each.error, artifact.label)
                for each in report.recall if each.k in SHOWN_KS
            },
            chance={f"R@{each.k}": each.chance for each in report.recall if each.k in SHOWN_KS},
            outcomes={NEAREST: answers}, tests=report.queries, gallery=report.gallery,
        )  # fmt: skip
        if (mean := report.precision) is not None:
            figures = {**row.figures, "mAP": Figure(mean.mean, mean.error, artifact.label)}
            row = replace(row, figures=figures, chance={**row.chance, "mAP": mean.chance})
        metric, pack = report.metric, report.pack
    else:
        name = PROBE if artifact.kind == "probe" else FINETUNE
        told = classification.read_report(artifact)
        row = Row(
            told.checkpoint, LEARNED, checkpoints,
            figures={name: Figure(told.top1, told.error, artifact.label)},
            chance={name: told.chance}, outcomes={name: answers},
            tests=told.test_clips, gallery=told.train_clips,
        )  # fmt: skip
        metric, pack = str(artifact.recipe.get("metric", "centred")), told.pack
    return _named(row, artifact.recipe, metric), pack


def _measured(checkpoint: Artifact, known: Mapping[str, Artifact]) -> Artifact:
    """Returns the checkpoint that a result is about: of a finetuned one, what it started from."""
    if checkpoint.recipe.get("stage") != "finetune":
        return checkpoint
    return known.get(checkpoint.parents.get(START, ""), checkpoint)


def _named(row: Row, recipe: Mapping[str, Any], metric: str) -> Row:
    """Returns a row with its kind, its views and a short name."""
    views = tuple(recipe.get("streams") or [recipe.get("stream")])
    whitened = ", whitened" if metric != "centred" else ""
    if recipe.get("stage") == "baseline":
        seed = recipe.get("seed")
        name = row.name + (f", seed {seed}" if seed else "")
        return replace(row, kind=BASELINE, name=name + whitened, seed=seed)
    names = list(dict.fromkeys(each.name for each in row.checkpoints)) or [row.name]
    several = any(len(checkpoint_views(each)) > 1 for each in row.checkpoints)
    meant = f" ({' + '.join(map(str, views))})" if several else ""
    return replace(row, name=f"{' + '.join(names)}{meant}{whitened}", views=tuple(map(str, views)))


def _told_apart(rows: list[Row]) -> list[Row]:
    """Returns rows whose names are unique: where two are equal, with the checkpoints' versions."""
    names = [row.name for row in rows]
    found = []
    for row in rows:
        if names.count(row.name) > 1 and row.checkpoints:
            labels = [each.label.partition("/")[2] for each in row.checkpoints]
            _, comma, rest = row.name.partition(",")
            found.append(replace(row, name=f"{' + '.join(labels)}{comma}{rest}"))
        else:
            found.append(row)
    return found


def knn_in_training(row: Row) -> float | None:
    """Returns the accuracy of the online kNN at the end of training, None where there is none."""
    if len(row.checkpoints) != 1:
        return None
    value = row.checkpoints[0].summary.get("knn")
    return float(value) if isinstance(value, int | float) else None
