"""Averages the class probabilities of several views, each of which was classified before.

The two-stream protocol of CoCLR and ViCC: one classifier per view, the mean of their softmax
outputs. CoCon weights the mean.

Legend: N test videos, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.evaluation import classification
from vidssl.evaluation.classification import ClassificationResult, ReportLabels
from vidssl.evaluation.evaluated_encoders import EncoderOnPack
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.parent_roles import numbered
from vidssl.workspace.workspace import Workspace


def joined_name(names: Iterable[str]) -> str:
    """Returns the name of an average: the names of its views, each once."""
    return "_".join(dict.fromkeys(names))


def average_recipe(
    kind: str,
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Returns the recipe of an average; of equal weights it says nothing.

    Args:
        kind: of the artifacts: probe or finetune.
    """
    return {
        "stage": kind,
        "streams": [subject.view for subject in subjects],
        "average": "probabilities",
        **({"weights": list(weights)} if weights is not None else {}),
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }


def average_views(
    workspace: Workspace,
    kind: str,
    subjects: Sequence[EncoderOnPack],
    singles: Sequence[ClassificationResult],
    labelled: LabelledSplit,
    name: str,
    compute: Callable[[Path], tuple[np.ndarray, float | None]],
    *,
    weights: Sequence[float] | None = None,
    new: bool = False,
) -> ClassificationResult:
    """Measures and publishes the average of several views, or finds it finished.

    Args:
        kind: of the artifacts: probe or finetune.
        singles: the result of each view by itself, in the order of `subjects`.
        compute: computes the averaged probabilities of the test videos [N, K], and the top-1
            accuracy on the training part (None: not measured). It takes the run's folder, and may
            write files there. It is called only if the average is not finished.
        weights: of the views, for the recipe; None: equal.
    """
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    for number, (subject, single) in enumerate(zip(subjects, singles, strict=True), 1):
        parents[numbered("checkpoint", number)] = subject.checkpoint
        parents[numbered(kind, number)] = published(single)
    recipe = average_recipe(kind, subjects, labelled, weights)
    with workspace.open_run(kind, name, recipe, parents, new) as run:
        if run.finished is not None:
            return classification.reused_result(run.finished, labelled)
        share_NK, train_top1 = compute(run.folder)
        reports = [single.report for single in singles if single.report is not None]
        report = classification.measure_accuracy(
            share_NK, labelled, ReportLabels.of(subjects), train_top1, reports
        )
        digest = canonical_digest({"run": run.identity, "report": asdict(report)})
        return classification.publish_report(run, report, share_NK, labelled, digest)


def published(result: ClassificationResult) -> Artifact:
    """Returns the artifact of a classification that was not a dry run."""
    assert result.stage.artifact is not None
    return result.stage.artifact
