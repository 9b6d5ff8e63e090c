"""`vidssl retrieve --evaluate`: measures how often nearest train videos have the right class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vidssl.base.device import choose_device
from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.evaluated_encoders import checkpoint_labels, describe_subjects
from vidssl.evaluation.feature_cache import features_of, recipe_of
from vidssl.evaluation.features import Features
from vidssl.evaluation.labelled_split import LabelledSplit, find_labelled_subjects
from vidssl.evaluation.measured_baselines import measured_baselines
from vidssl.evaluation.neighbours import Neighbours
from vidssl.evaluation.options import EvaluationOptions
from vidssl.evaluation.recall import (
    RetrievalReport,
    RetrievalResult,
    measure_recall,
    publish_recall,
    reused_result,
)
from vidssl.evaluation.view_average import joined_name
from vidssl.evaluation.whitening import check_metric, whitened_means
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.parent_roles import numbered
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class EvaluateRetrievalOptions(EvaluationOptions):
    """Options of `vidssl retrieve --evaluate`. The similarities of several views are added."""


def run(
    workspace: Workspace, options: EvaluateRetrievalOptions, progress: Progress = SILENT
) -> RetrievalResult:
    """Measures R@1, 5, 10, 20, 50 and mAP: test videos query the train videos of a split.

    Raises:
        VidsslError: no checkpoint, no labels, or no such split.
    """
    check_metric(options.metric)
    subjects, labelled = find_labelled_subjects(workspace, options)
    pack = subjects[0].pack
    name = options.name or joined_name(subject.checkpoint.name for subject in subjects)
    recipe = {
        "stage": "retrieve",
        "streams": [subject.view for subject in subjects],
        "features": [recipe_of(subject, options.protocol) for subject in subjects],
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }
    if options.metric != "centred":
        recipe["metric"] = options.metric
    if options.dry_run:
        plan: dict[str, Any] = {"makes": f"retrieval/{name}", "recipe": recipe}
        plan["inputs"] = [*checkpoint_labels(subjects), pack.label]
        return RetrievalResult(StageResult(None, notes=labelled.notes, plan=plan), None)
    shown = describe_subjects(subjects)
    progress.say(f"retrieve: {shown} on {pack.label}, {labelled.selection.note}")
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    found: list[Features] = []
    for number, subject in enumerate(subjects, 1):
        artifact, features = features_of(
            workspace, subject, options.protocol, options.device, progress
        )
        parents[numbered("checkpoint", number)] = subject.checkpoint
        parents[numbered("features", number)] = artifact
        found.append(features)
    baselines = measured_baselines(workspace, "retrieval", pack, labelled)
    with workspace.open_run("retrieval", name, recipe, parents, options.new) as opened:
        if opened.finished is not None:
            return replace(reused_result(opened.finished, labelled), baselines=baselines)
        device = choose_device(options.device)
        report, nearest = _measure(found, labelled, options.metric, shown, pack, device)
        artifact = publish_recall(opened, report, nearest, labelled)
    return RetrievalResult(StageResult(artifact, notes=labelled.notes), report, baselines)


def _measure(
    found: Sequence[Features],
    labelled: LabelledSplit,
    metric: str,
    shown: str,
    pack: Artifact,
    device: str,
) -> tuple[RetrievalReport, Neighbours]:
    """Measures the features by the metric asked for, and by the other one beside it."""
    centred = [features.video_means() for features in found]
    try:
        whitened = [whitened_means(features, labelled.selection.train) for features in found]
    except VidsslError:
        if metric == "whitened":
            raise
        whitened = []
    ways = (centred, whitened) if metric == "centred" else (whitened, centred)
    return measure_recall(ways[0], labelled, shown, pack, device, metric=metric, others_VD=ways[1])
