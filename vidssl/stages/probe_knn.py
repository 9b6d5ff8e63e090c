"""`vidssl probe --mode knn`: a vote of the nearest training videos, for one view or several.

Several views each vote by themselves; their shares of votes are averaged, as the probabilities of
their linear probes are. Nothing is trained, so several views are one artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError
from vidssl.base.progress import SILENT, Progress
from vidssl.base.typed_settings import configure
from vidssl.evaluation.classification import (
    ClassificationResult,
    ReportLabels,
    measure_accuracy,
    publish_report,
    reused_result,
)
from vidssl.evaluation.evaluated_encoders import EncoderOnPack
from vidssl.evaluation.feature_cache import features_of, name_of
from vidssl.evaluation.features import Features
from vidssl.evaluation.labelled_split import LabelledSplit, check_trainable, find_labelled_subjects
from vidssl.evaluation.nearest_vote import VoteConfig, vote_shares
from vidssl.evaluation.options import EvaluationOptions
from vidssl.evaluation.view_average import joined_name
from vidssl.evaluation.whitening import check_metric, whitened_means
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.parent_roles import in_role, numbered
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace


def vote_config(recipe: str | None, settings: Sequence[tuple[str, Any]]) -> VoteConfig:
    """Returns the settings of the vote.

    Raises:
        UsageError: a recipe was named, or a setting does not exist.
    """
    if recipe is not None:
        raise UsageError(
            "recipes hold settings of the linear probe: leave --recipe away, or --mode"
        )
    return configure("a vote of neighbours", VoteConfig(), settings)


def run_votes(
    workspace: Workspace,
    options: EvaluationOptions,
    config: VoteConfig,
    progress: Progress = SILENT,
) -> ClassificationResult:
    """Lets the nearest training videos vote on every test video, and publishes the accuracies.

    Raises:
        VidsslError: no checkpoint, no labels, or no such split.
    """
    check_metric(options.metric)
    subjects, labelled = find_labelled_subjects(workspace, options)
    check_trainable(labelled)
    recipe = _recipe(options, config, subjects, labelled)
    name = options.name or f"{_joined(subjects)}-knn"
    of = ReportLabels.of(subjects)
    if options.dry_run:
        labels = [subject.checkpoint.label for subject in subjects]
        inputs = in_role("checkpoint", labels) | {"pack": subjects[0].pack.label}
        plan: dict[str, Any] = {"makes": f"probe/{name}", "recipe": recipe, "inputs": inputs}
        return ClassificationResult(StageResult(None, notes=labelled.notes, plan=plan), None)
    progress.say(f"kNN: {of.checkpoint} on {of.pack}, {labelled.selection.note}")
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    found: list[Features] = []
    for number, subject in enumerate(subjects, 1):
        artifact, features = features_of(
            workspace, subject, options.protocol, options.device, progress
        )
        parents[numbered("checkpoint", number)] = subject.checkpoint
        parents[numbered("features", number)] = artifact
        found.append(features)
    with workspace.open_run("probe", name, recipe, parents, options.new) as run:
        if run.finished is not None:
            return reused_result(run.finished, labelled)
        device = choose_device(options.device)
        shares = [_votes(f, options.metric, labelled, config, device) for f in found]
        share_NK = np.mean(shares, axis=0)
        alone = [
            measure_accuracy(share, labelled, ReportLabels.of([subject]))
            for subject, share in zip(subjects, shares, strict=True)
        ]
        report = measure_accuracy(share_NK, labelled, of, views=alone if len(subjects) > 1 else ())
        digest = canonical_digest({"run": run.identity, "report": asdict(report)})
        return publish_report(run, report, share_NK, labelled, digest)


def _votes(
    features: Features, metric: str, labelled: LabelledSplit, config: VoteConfig, device: str
) -> np.ndarray:
    """Returns the shares of votes for the test videos, [N, K]."""
    if metric == "whitened":
        means_VD = whitened_means(features, labelled.selection.train)
    else:
        means_VD = features.video_means()
    train, classes = labelled.train, len(labelled.classes)
    return vote_shares(
        means_VD[labelled.test], means_VD[train], labelled.labels[train], classes, config, device
    )


def _recipe(
    options: EvaluationOptions,
    config: VoteConfig,
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
) -> dict[str, Any]:
    views: dict[str, Any] = (
        {"stream": subjects[0].view}
        if len(subjects) == 1
        else {"streams": [subject.view for subject in subjects]}
    )
    metric = {} if options.metric == "centred" else {"metric": options.metric}
    return views | metric | {
        "stage": "probe",
        "mode": "knn",
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        "settings": config.as_dict(),
    }  # fmt: skip


def _joined(subjects: Sequence[EncoderOnPack]) -> str:
    if len(subjects) == 1:
        return name_of(subjects[0])
    return joined_name(subject.checkpoint.name for subject in subjects)
