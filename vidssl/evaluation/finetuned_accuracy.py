"""A network with a classifier on the test part of a split: an artifact of kind finetune.

Published protocol (CoCLR and ViCC): windows as of features, each in ten crops; softmax; the mean
over windows and crops. Several streams: the mean of their probabilities, weighted where the paper
weights them (CoCon).

Legend: N test videos, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vidssl.base.device import choose_device
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write, file_digest
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.classification import (
    ClassificationResult,
    Classified,
    measure,
    read_report,
    summary_of,
    write_report,
)
from vidssl.evaluation.feature_cache import drop_parts, in_parts
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.labelled import LabelledSplit
from vidssl.evaluation.subjects import EncoderOnPack
from vidssl.methods import METHODS, Classifier
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec, checkpoint_tensors
from vidssl.workspace.parents import numbered
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Workspace

PROBABILITIES_FILE = "probabilities.safetensors"
PROBABILITIES_FORMAT = 1
HEADER = "vidssl-probabilities"


@dataclass(frozen=True)
class Finetuned:
    """A finetuned network of one stream, and how it is tested.

    Attributes:
        weight: of its probabilities where those of several streams are averaged.
    """

    subject: EncoderOnPack
    protocol: WindowProtocol
    weight: float = 1.0


def load_classifier(checkpoint: Artifact, stream: str) -> Classifier:
    """Loads what was finetuned, or its classifier alone trained: both, in eval mode.

    Raises:
        VidsslError: the checkpoint was not finetuned, or a file of it was changed.
    """
    if checkpoint.recipe.get("stage") != "finetune":
        raise VidsslError(f"{checkpoint.label} has no classifier: it was not finetuned")
    method = METHODS[checkpoint.recipe["method_name"]]
    config = method.Config(**checkpoint.recipe["method"])
    encoder = checkpoint_encoder(checkpoint, stream)
    classifier: Classifier = method.build(config, {stream: encoder}, 0).classifier  # type: ignore[assignment]
    classifier.load_head(checkpoint_tensors(checkpoint))
    return classifier.eval()


# ── one stream ───────────────────────────────────────────────────────────────────────────────


def classify(
    workspace: Workspace,
    network: Finetuned,
    labelled: LabelledSplit,
    name: str,
    *,
    anywhere: bool = False,
    new: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> ClassificationResult:
    """Classifies the test videos by one network, or finds it done.

    Args:
        anywhere: a finished test of any name will do.

    Raises:
        Interrupted: Ctrl-C; the same command goes on.
    """
    subject = network.subject
    recipe, parents = classify_recipe(network, labelled), classify_parents(network, labelled)
    opened = workspace.open_run("finetune", name, recipe, parents, new)
    finished = opened.finished
    if finished is None and anywhere and not new:
        finished = workspace.newest("finetune", lambda a: a.run == opened.identity)
    if finished is not None:
        return _found(finished, labelled)
    with opened as run:
        windows = in_parts(
            run.folder,
            load_classifier(subject.checkpoint, subject.stream),
            labelled.reader,
            labelled.test,
            network.protocol,
            choose_device(device),
            progress,
            description="test",
        )
        share_NK = windows.video_means(unit=False)
        report = measure(share_NK, labelled, Classified.by([subject]))
        save_probabilities(run.folder, share_NK, labelled)
        write_report(run.folder, report, share_NK, labelled)
        drop_parts(run.folder)
        content = file_digest(run.folder / PROBABILITIES_FILE)
        digest = canonical_digest({"run": run.identity, "content": content})
        stage = StageResult(run.publish(digest, summary_of(report)), notes=labelled.notes)
    return ClassificationResult(stage, report)


def classify_recipe(network: Finetuned, labelled: LabelledSplit) -> dict[str, Any]:
    """Returns the recipe of one network's test."""
    subject = network.subject
    spec = checkpoint_spec(subject.checkpoint, subject.stream)
    return {
        "stage": "finetune",
        "stream": subject.stream,
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        "protocol": network.protocol.as_dict(spec),
    }


def classify_parents(network: Finetuned, labelled: LabelledSplit) -> dict[str, Artifact]:
    """Returns what one network's test is made from."""
    subject = network.subject
    return {
        "checkpoint": subject.checkpoint,
        "pack": subject.pack,
        "annotations": labelled.artifact,
    }


def _found(artifact: Artifact, labelled: LabelledSplit) -> ClassificationResult:
    stage = StageResult(artifact, reused=True, notes=labelled.notes)
    return ClassificationResult(stage, read_report(artifact))


# ── several streams ──────────────────────────────────────────────────────────────────────────


def average(
    workspace: Workspace,
    networks: Sequence[Finetuned],
    singles: Sequence[ClassificationResult],
    labelled: LabelledSplit,
    name: str,
    *,
    new: bool = False,
) -> ClassificationResult:
    """Averages what several networks said of the test videos, each with its weight.

    Args:
        singles: what :func:`classify` gave of each of `networks`.
    """
    weights = [network.weight for network in networks]
    recipe = {
        "stage": "finetune",
        "streams": [network.subject.stream for network in networks],
        "average": "probabilities",
        "weights": weights,
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }
    tests = [single.stage.artifact for single in singles if single.stage.artifact is not None]
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    for number, (network, test) in enumerate(zip(networks, tests, strict=True), 1):
        parents[numbered("checkpoint", number)] = network.subject.checkpoint
        parents[numbered("finetune", number)] = test
    with workspace.open_run("finetune", name, recipe, parents, new) as run:
        if run.finished is not None:
            return _found(run.finished, labelled)
        shares = [load_probabilities(test.path / PROBABILITIES_FILE)[0] for test in tests]
        share_NK = np.average(shares, axis=0, weights=weights).astype(np.float32)
        whole = Classified.by([network.subject for network in networks])
        reports = [single.report for single in singles if single.report is not None]
        report = measure(share_NK, labelled, whole, streams=reports)
        save_probabilities(run.folder, share_NK, labelled)
        write_report(run.folder, report, share_NK, labelled)
        digest = canonical_digest({"run": run.identity, "report": asdict(report)})
        stage = StageResult(run.publish(digest, summary_of(report)), notes=labelled.notes)
    return ClassificationResult(stage, report)


# ── all probabilities ────────────────────────────────────────────────────────────────────────


def save_probabilities(folder: Path, share_NK: np.ndarray, labelled: LabelledSplit) -> None:
    """Writes probabilities.safetensors: a row for each of predictions.csv, a column per class."""
    about = {
        "format": PROBABILITIES_FORMAT,
        "vidssl_version": VERSION,
        "classes": list(labelled.classes),
    }
    # One entry only: safetensors writes several in an order of its own, new each time.
    header = {HEADER: json.dumps(about, sort_keys=True)}
    blob = safetensors.numpy.save({"probabilities": share_NK}, header)
    atomic_write(folder / PROBABILITIES_FILE, blob)


def load_probabilities(path: Path) -> tuple[np.ndarray, list[str]]:
    """Reads what :func:`save_probabilities` wrote: float32 [N, K], and the names of the classes.

    Raises:
        VidsslError: no such file, damaged, or of another kind or format.
    """
    if not path.exists():
        raise VidsslError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            if about.get("format") != PROBABILITIES_FORMAT:
                raise VidsslError(
                    f"{path} has probabilities of format {about.get('format')}, and this vidssl "
                    f"({VERSION}) reads format {PROBABILITIES_FORMAT}"
                )
            return file.get_tensor("probabilities"), about["classes"]
    except safetensors.SafetensorError as error:
        raise VidsslError(f"{path} is damaged: {error}") from error
