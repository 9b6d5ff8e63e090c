"""Finds the baselines that were measured on a split, to be shown beside a result on it."""

from __future__ import annotations

from typing import Any

from vidssl.evaluation import classification, recall
from vidssl.evaluation.baseline_figures import BaselineFigures
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace


def measured_baselines(
    workspace: Workspace, kind: str, pack: Artifact, labelled: LabelledSplit
) -> list[BaselineFigures]:
    """Returns the baselines that `vidssl baselines` has measured on this pack and split.

    Args:
        kind: "retrieval" or "probe".
    """
    newest: dict[str, Artifact] = {}
    for artifact in workspace.scan(kind)[0]:
        if _is_of(artifact, pack, labelled):
            newest[artifact.name] = artifact
    return [_figures(kind, artifact) for artifact in newest.values()]


def _is_of(artifact: Artifact, pack: Artifact, labelled: LabelledSplit) -> bool:
    recipe: dict[str, Any] = dict(artifact.recipe)
    wanted = {
        "stage": "baseline",
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }
    same = {name: recipe.get(name) for name in wanted} == wanted
    parents = {"pack": pack.digest, "annotations": labelled.artifact.digest}
    return same and {role: artifact.parents.get(role) for role in parents} == parents


def _figures(kind: str, artifact: Artifact) -> BaselineFigures:
    if kind == "retrieval":
        found = recall.read_report(artifact)
        first, precision = found.at(1), found.precision
        mean = precision.mean if precision else None
        return BaselineFigures(found.features, first.error, recall=first.recall, precision=mean)
    probed = classification.read_report(artifact)
    return BaselineFigures(probed.checkpoint, probed.error, top1=probed.top1)
