"""`vidssl probe`: trains a linear classifier on frozen features, and tests it.

Published protocol for saved features: the mean of a video's unit-length windows, not centred;
BatchNorm and one linear layer; the weights of the last epoch. The test part chooses nothing.
Several views have one classifier each, whose class probabilities are averaged (CoCLR and ViCC,
two streams).

Legend: V videos of the pack, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.errors import require
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.classification import ClassificationResult, ReportLabels, reused_result
from vidssl.evaluation.evaluated_encoders import EncoderOnPack
from vidssl.evaluation.feature_cache import features_of, name_of
from vidssl.evaluation.features import Features
from vidssl.evaluation.labelled_split import LabelledSplit, check_trainable, find_labelled_subjects
from vidssl.evaluation.linear_probe import ProbeConfig, probabilities, probe_settings
from vidssl.evaluation.measured_baselines import measured_baselines
from vidssl.evaluation.options import EvaluationOptions
from vidssl.evaluation.probed_accuracy import probe_features, read_probe, train_top1
from vidssl.evaluation.view_average import average_recipe, average_views, joined_name, published
from vidssl.evaluation.whitening import check_metric, whitened_means
from vidssl.recipes.recipe import probe_config
from vidssl.stages.probe_knn import run_votes, vote_config
from vidssl.workspace.parent_roles import in_role
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

MODES = ("linear", "knn")


@dataclass(frozen=True)
class ProbeOptions(EvaluationOptions):
    """Options of `vidssl probe`.

    The probabilities of several views are averaged.

    Attributes:
        mode: one of :data:`MODES`.
        recipe: a shipped recipe whose section [probe] is used; None: the defaults.
        settings: (field, value) overrides of :class:`ProbeConfig`, or of
            :class:`vidssl.evaluation.nearest_vote.VoteConfig` in mode knn.
        seed: of the classifier's initial weights and of the order of videos.
    """

    mode: str = "linear"
    recipe: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(
    workspace: Workspace, options: ProbeOptions, progress: Progress = SILENT
) -> ClassificationResult:
    """Trains and tests a linear probe on frozen features, or one for each of several views.

    In mode knn nothing is trained: the nearest training videos vote.

    Raises:
        VidsslError: no checkpoint, no labels, no such split, or a split that cannot be probed.
        UsageError: a setting that does not exist.
    """
    require("mode", options.mode, options.mode in MODES, " or ".join(MODES))
    if options.mode == "knn":
        votes = vote_config(options.recipe, options.settings)
        return run_votes(workspace, options, votes, progress)
    check_metric(options.metric)
    config = probe_config(options.recipe, options.settings)
    subjects, labelled = find_labelled_subjects(workspace, options)
    check_trainable(labelled)
    if options.dry_run:
        return _plan(subjects, labelled, config, options)
    of = ReportLabels.of(subjects)
    progress.say(f"probe: {of.checkpoint} on {of.pack}, {labelled.selection.note}")
    if len(subjects) > 1:
        result = _average(workspace, subjects, labelled, config, options, progress)
    else:
        named = replace(options, name=_name(subjects, options))
        result = _one(workspace, subjects[0], labelled, config, named, progress)
    baselines = measured_baselines(workspace, "probe", subjects[0].pack, labelled)
    return replace(result, baselines=baselines)


def _plan(
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
) -> ClassificationResult:
    """Returns the plan of a dry run: the recipe of each view, and of their average."""
    each = [_recipe(options, config, subject, labelled) for subject in subjects]
    several = len(subjects) > 1
    plan: dict[str, Any] = {
        "makes": f"probe/{_name(subjects, options)}",
        "recipe": average_recipe("probe", subjects, labelled) if several else each[0],
        "inputs": in_role("checkpoint", [subject.checkpoint.label for subject in subjects])
        | {"pack": subjects[0].pack.label},
    }
    if several:
        plan["streams"] = in_role("probe", each)
    return ClassificationResult(StageResult(None, notes=labelled.notes, plan=plan), None)


# ── one view ─────────────────────────────────────────────────────────────────────────────────


def _one(
    workspace: Workspace,
    subject: EncoderOnPack,
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
    progress: Progress,
) -> ClassificationResult:
    """Probes one view, or finds it probed; without a name in `options`, under any name."""
    artifact, features = features_of(workspace, subject, options.protocol, options.device, progress)
    recipe = _recipe(options, config, subject, labelled)
    parents = {
        "checkpoint": subject.checkpoint,
        "features": artifact,
        "annotations": labelled.artifact,
    }
    name = options.name or name_of(subject)
    opened = workspace.open_run("probe", name, recipe, parents, options.new)
    finished = opened.finished
    if finished is None and options.name is None and not options.new:
        finished = workspace.newest("probe", lambda a: a.run == opened.identity)
    if finished is not None:
        return reused_result(finished, labelled)
    with opened as run:
        return probe_features(
            run,
            _probed(features, options.metric, labelled),
            labelled,
            ReportLabels.of([subject]),
            config,
            options.seed,
            encoder=subject.checkpoint.digest,
            device=options.device,
            progress=progress,
        )


def _probed(features: Features, metric: str, labelled: LabelledSplit) -> np.ndarray:
    """Returns what a classifier is trained on: float32 [V, D]; the published one is not centred."""
    if metric == "whitened":
        return whitened_means(features, labelled.selection.train)
    return features.video_means()


def _recipe(
    options: ProbeOptions, config: ProbeConfig, subject: EncoderOnPack, labelled: LabelledSplit
) -> dict[str, Any]:
    metric = {} if options.metric == "centred" else {"metric": options.metric}
    return (
        metric
        | {
            "stage": "probe",
            "stream": subject.view,
            "split": labelled.selection.name,
            "split_seed": labelled.split_seed,
            "seed": options.seed,
        }
        | probe_settings(config, len(labelled.train))
    )


# ── several views ────────────────────────────────────────────────────────────────────────────


def _average(
    workspace: Workspace,
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
    progress: Progress,
) -> ClassificationResult:
    """Probes each view, or finds it probed, and averages the classifiers' probabilities."""
    each = replace(options, name=None)
    singles = [_one(workspace, s, labelled, config, each, progress) for s in subjects]

    def compute(folder: Path) -> tuple[np.ndarray, float]:
        shares = []
        for subject, single in zip(subjects, singles, strict=True):
            _, features = features_of(
                workspace, subject, options.protocol, options.device, progress
            )
            probe, _ = read_probe(published(single))
            means = _probed(features, options.metric, labelled)
            shares.append(probabilities(probe, means))
        share_VK = np.mean(shares, axis=0)
        return share_VK[labelled.test], train_top1(share_VK, labelled)

    name = _name(subjects, options)
    return average_views(
        workspace, "probe", subjects, singles, labelled, name, compute, new=options.new
    )


def _name(subjects: Sequence[EncoderOnPack], options: ProbeOptions) -> str:
    """Returns the name of the probe, or of the average of several views."""
    if options.name is not None:
        return options.name
    if len(subjects) == 1:
        return name_of(subjects[0])
    return joined_name(subject.checkpoint.name for subject in subjects)
