"""`vidssl probe`: how well a linear classifier on frozen features tells the classes apart.

Published protocol for saved features: unit windows, their mean, uncentred; BatchNorm and one
linear layer; the last epoch counts. Nothing is chosen by the test part. Several streams have a
classifier each, whose class probabilities are averaged (CoCLR and ViCC, two streams).

Legend: V videos of the pack, D feature width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from vidssl.base.device import choose_device
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.classification import (
    ClassificationResult,
    Classified,
    measure,
    read_report,
    summary_of,
    write_report,
)
from vidssl.evaluation.feature_cache import features_of, name_of
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.labelled import (
    LabelledSplit,
    check_trainable,
    find_labels,
)
from vidssl.evaluation.linear_probe import (
    LinearProbe,
    ProbeConfig,
    batch_for,
    probabilities,
    rate_for,
    train_probe,
)
from vidssl.evaluation.subjects import (
    EncoderOnPack,
    check_words,
    find_subjects,
)
from vidssl.recipes.recipe import probe_config
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.parents import in_role, numbered
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Run, Workspace

PROBE_FILE = "probe.safetensors"
PROBE_FORMAT = 1


@dataclass(frozen=True)
class ProbeOptions:
    """What to probe, and how.

    Attributes:
        checkpoints: one, or one of each stream; none: the newest of each of `streams`.
        streams: those whose probabilities are averaged; none: the checkpoints' own, or rgb.
        pack: None: the one the first checkpoint was trained on.
        split: None: the one the first checkpoint was trained with.
        recipe: a shipped recipe whose [probe] is taken; None: the defaults.
        settings: (field, value) overrides of :class:`ProbeConfig`.
        name: of the artifact; None: the checkpoints'.
    """

    checkpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    pack: str | None = None
    split: str | None = None
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    recipe: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    name: str | None = None
    seed: int = 0
    new: bool = False
    device: str | None = None
    dry_run: bool = False


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(
    workspace: Workspace, options: ProbeOptions, progress: Progress = SILENT
) -> ClassificationResult:
    """Trains and tests a linear probe on frozen features, or one for each of several streams.

    Raises:
        VidsslError: no checkpoint, no labels, no such split, or a split that cannot be probed.
        UsageError: a setting that does not exist.
    """
    config = probe_config(options.recipe, options.settings)
    check_words(options.checkpoints, options.streams, options.device, options.name)
    subjects = find_subjects(workspace, options.checkpoints, options.streams, options.pack)
    checkpoints = [subject.checkpoint for subject in subjects]
    labelled = find_labels(workspace, subjects[0].pack, checkpoints, options.split)
    check_trainable(labelled)
    if options.dry_run:
        return _plan(subjects, labelled, config, options)
    whole = Classified.by(subjects)
    progress.say(f"probe: {whole.checkpoint} on {whole.pack}, {labelled.selection.note}")
    if len(subjects) > 1:
        return _average(workspace, subjects, labelled, config, options, progress)
    name = options.name or name_of(subjects[0])
    return _one(workspace, subjects[0], labelled, config, replace(options, name=name), progress)


def _plan(
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
) -> ClassificationResult:
    """Returns what would be done: the recipe of every stream, and of their average."""
    each = [_recipe(options, config, subject, labelled) for subject in subjects]
    several = len(subjects) > 1
    plan: dict[str, Any] = {
        "makes": f"probe/{options.name or _joined_name(subjects)}",
        "recipe": _average_recipe(subjects, labelled) if several else each[0],
        "inputs": in_role("checkpoint", [subject.checkpoint.label for subject in subjects])
        | {"pack": subjects[0].pack.label},
    }
    if several:
        plan["streams"] = in_role("probe", each)
    return ClassificationResult(StageResult(None, notes=labelled.notes, plan=plan), None)


# ── one stream ───────────────────────────────────────────────────────────────────────────────


def _one(
    workspace: Workspace,
    subject: EncoderOnPack,
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
    progress: Progress,
) -> ClassificationResult:
    """Probes one stream under the name of `options`; without a name, one of any name will do."""
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
        stage = StageResult(finished, reused=True, notes=labelled.notes)
        return ClassificationResult(stage, read_report(finished))
    with opened as run:
        return probe_features(
            run,
            features.video_means(),
            labelled,
            Classified.by([subject]),
            config,
            options.seed,
            encoder=subject.checkpoint.digest,
            device=options.device,
            progress=progress,
        )


def probe_features(
    run: Run,
    means_VD: np.ndarray,
    labelled: LabelledSplit,
    of: Classified,
    config: ProbeConfig,
    seed: int,
    *,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress = SILENT,
) -> ClassificationResult:
    """Trains a probe on features of all the pack's videos, tests it, and publishes the run.

    Args:
        means_VD: float32, one row for each of `labelled.ids`.
        of: what the features are of, for the report.
        encoder: digest of the checkpoint they come from; None where there is none.
    """
    with progress.task("probe", config.epochs, "epoch") as task:
        probe = train_probe(
            means_VD[labelled.train],
            labelled.labels[labelled.train],
            len(labelled.classes),
            config,
            seed,
            choose_device(device),
            lambda loss: task.advance(loss=loss),
        )
    share_VK = probabilities(probe, means_VD)
    test_NK, train_top1 = share_VK[labelled.test], _train_top1(share_VK, labelled)
    report = measure(test_NK, labelled, of, train_top1)
    write_report(run.folder, report, test_NK, labelled)
    weights = _save_probe(run.folder, probe, of.stream, encoder, labelled)
    content = canonical_digest({"report": asdict(report), "weights": weights})
    digest = canonical_digest({"recipe": run.recipe, "content": content})
    stage = StageResult(run.publish(digest, summary_of(report)), notes=labelled.notes)
    return ClassificationResult(stage, report)


def _recipe(
    options: ProbeOptions, config: ProbeConfig, subject: EncoderOnPack, labelled: LabelledSplit
) -> dict[str, Any]:
    return {
        "stage": "probe",
        "stream": subject.stream,
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        "seed": options.seed,
    } | settings_of(config, labelled)


def settings_of(config: ProbeConfig, labelled: LabelledSplit) -> dict[str, Any]:
    """Returns every number of a probe's training, for its recipe."""
    batch = batch_for(len(labelled.train), config)
    settings = config.as_dict() | {"batch": batch}
    return {"settings": settings, "first_rate": rate_for(batch, config)}


def _train_top1(share_VK: np.ndarray, labelled: LabelledSplit) -> float:
    answers = share_VK[labelled.train].argmax(1)
    return float((answers == labelled.labels[labelled.train]).mean())


# ── several streams ──────────────────────────────────────────────────────────────────────────


def _average(
    workspace: Workspace,
    subjects: Sequence[EncoderOnPack],
    labelled: LabelledSplit,
    config: ProbeConfig,
    options: ProbeOptions,
    progress: Progress,
) -> ClassificationResult:
    """Probes every stream, or finds it probed, and averages what the classifiers say."""
    each = replace(options, name=None)
    singles = [_one(workspace, s, labelled, config, each, progress) for s in subjects]
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    for number, (subject, single) in enumerate(zip(subjects, singles, strict=True), 1):
        parents[numbered("checkpoint", number)] = subject.checkpoint
        parents[numbered("probe", number)] = _artifact(single)
    name = options.name or _joined_name(subjects)
    recipe = _average_recipe(subjects, labelled)
    with workspace.open_run("probe", name, recipe, parents, options.new) as run:
        if run.finished is not None:
            stage = StageResult(run.finished, reused=True, notes=labelled.notes)
            return ClassificationResult(stage, read_report(run.finished))
        shares = []
        for subject, single in zip(subjects, singles, strict=True):
            _, features = features_of(
                workspace, subject, options.protocol, options.device, progress
            )
            probe, _ = load_probe(_artifact(single).path / PROBE_FILE)
            shares.append(probabilities(probe, features.video_means()))
        share_VK = np.mean(shares, axis=0)
        report = measure(
            share_VK[labelled.test],
            labelled,
            Classified.by(subjects),
            _train_top1(share_VK, labelled),
            [single.report for single in singles if single.report is not None],
        )
        write_report(run.folder, report, share_VK[labelled.test], labelled)
        digest = canonical_digest({"run": run.identity, "report": asdict(report)})
        stage = StageResult(run.publish(digest, summary_of(report)), notes=labelled.notes)
    return ClassificationResult(stage, report)


def _average_recipe(subjects: Sequence[EncoderOnPack], labelled: LabelledSplit) -> dict[str, Any]:
    return {
        "stage": "probe",
        "streams": [subject.stream for subject in subjects],
        "average": "probabilities",
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }


def _joined_name(subjects: Sequence[EncoderOnPack]) -> str:
    if len(subjects) == 1:
        return name_of(subjects[0])
    return "_".join(dict.fromkeys(subject.checkpoint.name for subject in subjects))


def _artifact(result: ClassificationResult) -> Artifact:
    assert result.stage.artifact is not None
    return result.stage.artifact


# ── the classifier's file ────────────────────────────────────────────────────────────────────


def _save_probe(
    folder: Path, probe: LinearProbe, stream: str, encoder: str | None, labelled: LabelledSplit
) -> dict[str, Any]:
    """Writes probe.safetensors and gives its tensors as lists."""
    # One entry only: safetensors writes several in an order of its own, new each time.
    about = {
        "format": PROBE_FORMAT,
        "vidssl_version": VERSION,
        "classes": list(labelled.classes),
        "stream": stream,
        "encoder": encoder,
    }
    header = {"vidssl-probe": json.dumps(about, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in probe.state_dict().items()}
    atomic_write(folder / PROBE_FILE, safetensors.torch.save(state, header))
    return {k: v.tolist() for k, v in state.items()}


def load_probe(path: Path) -> tuple[LinearProbe, list[str]]:
    """Reads probe.safetensors: the classifier, in eval mode, and the names of its classes.

    Raises:
        VidsslError: no such file, or no probe.
    """
    if not path.exists():
        raise VidsslError(f"there is no probe file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise VidsslError(f"{path} is damaged: {error}") from error
    if "vidssl-probe" not in header:
        raise VidsslError(f"{path} is no vidssl probe: its header does not say so")
    about = json.loads(header["vidssl-probe"])
    if about["format"] != PROBE_FORMAT:
        raise VidsslError(
            f"{path} has probe format {about['format']}, and this vidssl ({VERSION}) reads "
            f"format {PROBE_FORMAT}"
        )
    classes: list[str] = about["classes"]
    probe = LinearProbe(state["fc.weight"].shape[1], len(classes))
    probe.load_state_dict(state, strict=True)
    return probe.eval(), classes
