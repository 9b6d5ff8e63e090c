"""`vidssl probe`: how well a linear classifier on frozen features tells the classes apart.

Published protocol for saved features: unit windows, their mean, uncentred; BatchNorm and one
linear layer; the last epoch counts. Nothing is chosen by the test part.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from vidssl.artifacts import Artifact, Workspace, atomic_write, canonical_digest, write_json
from vidssl.errors import UsageError, VidsslError, nearest_name
from vidssl.features import Protocol
from vidssl.linear_probe import (
    LinearProbe,
    ProbeConfig,
    batch_for,
    probabilities,
    rate_for,
    train_probe,
)
from vidssl.neighbours import standard_error
from vidssl.progress import SILENT, Progress
from vidssl.stages.embed import features_of
from vidssl.stages.evaluation import Labelled, Subject, find_labels, find_subject
from vidssl.stages.result import StageResult
from vidssl.stages.training import choose_device
from vidssl.version import VERSION

RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.csv"
PROBE_FILE = "probe.safetensors"
PROBE_FORMAT = 1
TOP = 5


@dataclass(frozen=True)
class ProbeOptions:
    """What to probe, and how.

    Attributes:
        checkpoint: None: the newest of the stream.
        stream: None: the checkpoint's own, or rgb.
        pack: None: the one the checkpoint was trained on.
        split: None: the one the checkpoint was trained with.
        settings: (field, value) overrides of :class:`ProbeConfig`.
        name: of the artifact; None: the checkpoint's.
    """

    checkpoint: str | None = None
    stream: str | None = None
    pack: str | None = None
    split: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    settings: tuple[tuple[str, Any], ...] = ()
    name: str | None = None
    seed: int = 0
    new: bool = False
    device: str | None = None
    dry_run: bool = False


# ── the report ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ClassRow:
    """One class of the test part.

    Attributes:
        accuracy: share of its test clips that were recognised; None without a test clip.
        confused_with: the class most of its mistakes went to, None without a mistake.
        confused: how many did.
    """

    name: str
    test_clips: int
    accuracy: float | None
    confused_with: str | None
    confused: int


@dataclass(frozen=True)
class ProbeReport:
    """What the classifier reached on the test part.

    Attributes:
        top1, top5: shares; top5 is None with five classes or fewer, where it says nothing.
        error: one standard error of top1; top5_error likewise.
        chance: share of the test part's commonest class, which a constant answer reaches.
        train_top1: on the training part, to tell a weak feature from an overfitted classifier.
        classes: one row per class.
        confusion: test clips by true class (row) and answer (column).
    """

    checkpoint: str
    stream: str
    pack: str
    split: str
    train_clips: int
    test_clips: int
    top1: float
    error: float
    top5: float | None
    top5_error: float | None
    chance: float
    train_top1: float
    classes: list[ClassRow]
    confusion: list[list[int]]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProbeReport:
        """Reads what :func:`dataclasses.asdict` wrote."""
        return cls(**{**data, "classes": [ClassRow(**row) for row in data["classes"]]})


@dataclass(frozen=True)
class ProbeResult:
    """The probe's artifact and what is in it."""

    stage: StageResult
    report: ProbeReport | None

    def as_dict(self) -> dict[str, Any]:
        """Gives the result as plain data, for --json."""
        found = {"results": asdict(self.report)} if self.report else {}
        return self.stage.as_dict() | found


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(workspace: Workspace, options: ProbeOptions, progress: Progress = SILENT) -> ProbeResult:
    """Trains and tests a linear probe on a checkpoint's frozen features.

    Raises:
        VidsslError: no checkpoint, no labels, no such split, or a split that cannot be probed.
        UsageError: a setting that does not exist.
    """
    config = configure(options.settings)
    subject = find_subject(workspace, options.checkpoint, options.stream, options.pack)
    labelled = find_labels(workspace, subject.pack, [subject.checkpoint], options.split)
    _check_trainable(labelled)
    recipe = _recipe(options, config, subject, labelled)
    name = options.name or subject.checkpoint.name
    if options.dry_run:
        plan = {"makes": f"probe/{name}", "recipe": recipe}
        plan |= {"inputs": {"checkpoint": subject.checkpoint.label, "pack": subject.pack.label}}
        return ProbeResult(StageResult(None, notes=labelled.notes, plan=plan), None)
    progress.say(
        f"probe: {subject.checkpoint.label} on {subject.pack.label}, {labelled.selection.note}"
    )
    artifact, features = features_of(workspace, subject, options.protocol, options.device, progress)
    parents = {
        "checkpoint": subject.checkpoint,
        "features": artifact,
        "annotations": labelled.artifact,
    }
    with workspace.open_run("probe", name, recipe, parents, options.new) as run:
        if run.finished is not None:
            stage = StageResult(run.finished, reused=True, notes=labelled.notes)
            return ProbeResult(stage, read_report(run.finished))
        means = features.video_means()
        probe = _train(means, labelled, config, options, progress)
        share = probabilities(probe, means)
        report = _report(share, subject, labelled)
        published = _publish(run.folder, probe, share, report, subject, labelled)
        summary = {"top1": report.top1, "top5": report.top5, "error": report.error}
        summary |= {"split": report.split, "test_clips": report.test_clips}
        digest = canonical_digest({"recipe": recipe, "content": published})
        stage = StageResult(run.publish(digest, summary), notes=labelled.notes)
    return ProbeResult(stage, report)


def configure(settings: Sequence[tuple[str, Any]]) -> ProbeConfig:
    """Gives the probe's settings with the user's overrides.

    Raises:
        UsageError: a setting that does not exist; the sentence names the nearest.
    """
    config = ProbeConfig()
    for name, value in settings:
        if name not in asdict(config):
            raise UsageError(
                f"a probe has no setting {name}{nearest_name(name, asdict(config))}; "
                f"it has {', '.join(asdict(config))}"
            )
        config = replace(config, **{name: tuple(value) if name == "decay_at" else value})
    if config.epochs < 1 or (config.batch is not None and config.batch < 2):
        raise UsageError("a probe needs at least one epoch and a batch of two videos or more")
    return config


def read_report(artifact: Artifact) -> ProbeReport:
    """Reads the results of a probe artifact."""
    text = (artifact.path / RESULTS_FILE).read_text()
    return ProbeReport.from_dict(json.loads(text))


def _check_trainable(labelled: Labelled) -> None:
    known = np.unique(labelled.labels[labelled.train])
    if len(known) < 2:
        raise VidsslError(
            f"a probe tells classes apart, and the train part of {labelled.selection.name} "
            f"has only {labelled.classes[known[0]]}"
        )


def _recipe(
    options: ProbeOptions, config: ProbeConfig, subject: Subject, labelled: Labelled
) -> dict[str, Any]:
    batch = batch_for(len(labelled.train), config)
    settings = asdict(config) | {"batch": batch, "decay_at": list(config.decay_at)}
    return {
        "stage": "probe",
        "stream": subject.stream,
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        "seed": options.seed,
        "settings": settings,
        "first_rate": rate_for(batch, config),
    }


def _train(
    means_VD: np.ndarray,
    labelled: Labelled,
    config: ProbeConfig,
    options: ProbeOptions,
    progress: Progress,
) -> LinearProbe:
    with progress.task("probe", config.epochs, "epoch") as task:
        return train_probe(
            means_VD[labelled.train],
            labelled.labels[labelled.train],
            len(labelled.classes),
            config,
            options.seed,
            choose_device(options.device),
            lambda loss: task.advance(loss=loss),
        )


def _report(share_VK: np.ndarray, subject: Subject, labelled: Labelled) -> ProbeReport:
    classes = len(labelled.classes)
    truth, answers = labelled.labels[labelled.test], _ranked(share_VK[labelled.test])
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, answers[:, 0]), 1)
    count = len(truth)
    top1 = float((answers[:, 0] == truth).mean())
    top5 = float((answers[:, :TOP] == truth[:, None]).any(1).mean()) if classes > TOP else None
    train_answers = share_VK[labelled.train].argmax(1)
    return ProbeReport(
        checkpoint=subject.checkpoint.label,
        stream=subject.stream,
        pack=subject.pack.label,
        split=labelled.selection.name,
        train_clips=len(labelled.train),
        test_clips=count,
        top1=top1,
        error=standard_error(top1, count),
        top5=top5,
        top5_error=None if top5 is None else standard_error(top5, count),
        chance=float(np.bincount(truth).max() / count),
        train_top1=float((train_answers == labelled.labels[labelled.train]).mean()),
        classes=[_class_row(confusion, k, labelled.classes) for k in range(classes)],
        confusion=confusion.tolist(),
    )


def _ranked(share_NK: np.ndarray) -> np.ndarray:
    """Gives the classes of each row, likeliest first."""
    return np.argsort(-share_NK, axis=1, kind="stable")


def _class_row(confusion_KK: np.ndarray, k: int, names: Sequence[str]) -> ClassRow:
    row = confusion_KK[k].copy()
    count, right = int(row.sum()), int(row[k])
    row[k] = 0
    wrong = int(row.max())
    return ClassRow(
        name=names[k],
        test_clips=count,
        accuracy=right / count if count else None,
        confused_with=names[int(row.argmax())] if wrong else None,
        confused=wrong,
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────


def _publish(
    folder: Path,
    probe: LinearProbe,
    share_VK: np.ndarray,
    report: ProbeReport,
    subject: Subject,
    labelled: Labelled,
) -> str:
    """Writes the artifact's files and gives a digest of results and weights."""
    write_json(folder / RESULTS_FILE, asdict(report))
    atomic_write(folder / PREDICTIONS_FILE, _predictions(share_VK, labelled))
    # One entry only: safetensors writes several in an order of its own, new each time.
    about = {
        "format": PROBE_FORMAT,
        "vidssl_version": VERSION,
        "classes": list(labelled.classes),
        "stream": subject.stream,
        "encoder": subject.checkpoint.digest,
    }
    header = {"vidssl-probe": json.dumps(about, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in probe.state_dict().items()}
    weights = safetensors.torch.save(state, header)
    atomic_write(folder / PROBE_FILE, weights)
    listed = {k: v.tolist() for k, v in state.items()}
    return canonical_digest({"report": asdict(report), "weights": listed})


def _predictions(share_VK: np.ndarray, labelled: Labelled) -> bytes:
    """Gives one row per test video: the truth, then the likeliest classes with probabilities."""
    shown = min(TOP, len(labelled.classes))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = [f(k) for k in range(1, shown + 1) for f in ("class_{}".format, "share_{}".format)]
    table.writerow(["id", "label", *head])
    ranked = _ranked(share_VK[labelled.test])[:, :shown]
    for video, answers in zip(labelled.test, ranked, strict=True):
        cells = [c for k in answers for c in (labelled.classes[k], f"{share_VK[video, k]:.4f}")]
        table.writerow([labelled.ids[video], labelled.classes[labelled.labels[video]], *cells])
    return text.getvalue().encode()


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
