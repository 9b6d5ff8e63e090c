"""Tests finetuned networks on the test part of a split, and publishes artifacts of kind finetune.

Published protocol (CoCLR and ViCC): the windows of features, each in ten crops; softmax; the mean
over windows and crops. Several views: the mean of their probabilities, weighted if the paper
weights them (CoCon).

Legend: N test videos, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
    ReportLabels,
    measure_accuracy,
    publish_report,
    reused_result,
)
from vidssl.evaluation.evaluated_encoders import EncoderOnPack
from vidssl.evaluation.feature_cache import drop_parts, embed_in_parts
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.evaluation.view_average import average_views, published
from vidssl.methods import METHODS, Classifier
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec, checkpoint_tensors
from vidssl.workspace.workspace import Workspace

PROBABILITIES_FILE = "probabilities.safetensors"
PROBABILITIES_FORMAT = 1
HEADER = "vidssl-probabilities"
KIND = "finetune"  # of the artifacts


@dataclass(frozen=True)
class FinetunedNetwork:
    """A finetuned network of one view, and how it is tested.

    Attributes:
        weight: of its probabilities in an average of several views.
    """

    subject: EncoderOnPack
    protocol: WindowProtocol
    weight: float = 1.0


def load_classifier(checkpoint: Artifact, view: str) -> Classifier:
    """Loads a finetuned encoder with its classifier, or one with a frozen encoder, in eval mode.

    Raises:
        VidsslError: the checkpoint was not finetuned, or a file of it was changed.
    """
    if checkpoint.recipe.get("stage") != "finetune":
        raise VidsslError(f"{checkpoint.label} has no classifier: it was not finetuned")
    method = METHODS[checkpoint.recipe["method_name"]]
    config = method.Config(**checkpoint.recipe["method"])
    encoder = checkpoint_encoder(checkpoint, view)
    classifier: Classifier = method.build(config, {view: encoder}, 0).classifier  # type: ignore[assignment]
    classifier.load_head(checkpoint_tensors(checkpoint))
    return classifier.eval()


# ── one view ─────────────────────────────────────────────────────────────────────────────────


def classify(
    workspace: Workspace,
    network: FinetunedNetwork,
    labelled: LabelledSplit,
    name: str,
    *,
    anywhere: bool = False,
    new: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> ClassificationResult:
    """Classifies the test videos with one network, or finds the finished artifact.

    Args:
        anywhere: accept a finished artifact of any name.

    Raises:
        Interrupted: Ctrl-C was pressed; the same command continues.
    """
    subject = network.subject
    recipe, parents = classify_recipe(network, labelled), classify_parents(network, labelled)
    opened = workspace.open_run(KIND, name, recipe, parents, new)
    finished = opened.finished
    if finished is None and anywhere and not new:
        finished = workspace.newest(KIND, lambda a: a.run == opened.identity)
    if finished is not None:
        return reused_result(finished, labelled)
    with opened as run:
        windows = embed_in_parts(
            run.folder,
            load_classifier(subject.checkpoint, subject.view),
            labelled.reader,
            labelled.test,
            network.protocol,
            choose_device(device),
            progress,
            description="test",
        )
        share_NK = windows.video_means(unit=False)
        report = measure_accuracy(share_NK, labelled, ReportLabels.of([subject]))
        save_probabilities(run.folder, share_NK, labelled)
        drop_parts(run.folder)
        content = file_digest(run.folder / PROBABILITIES_FILE)
        digest = canonical_digest({"run": run.identity, "content": content})
        return publish_report(run, report, share_NK, labelled, digest)


def classify_recipe(network: FinetunedNetwork, labelled: LabelledSplit) -> dict[str, Any]:
    """Returns the recipe of one network's test."""
    subject = network.subject
    spec = checkpoint_spec(subject.checkpoint, subject.view)
    return {
        "stage": KIND,
        "stream": subject.view,
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        "protocol": network.protocol.as_dict(spec),
    }


def classify_parents(network: FinetunedNetwork, labelled: LabelledSplit) -> dict[str, Artifact]:
    """Returns the parents of one network's test."""
    subject = network.subject
    return {
        "checkpoint": subject.checkpoint,
        "pack": subject.pack,
        "annotations": labelled.artifact,
    }


# ── several views ────────────────────────────────────────────────────────────────────────────


def average(
    workspace: Workspace,
    networks: Sequence[FinetunedNetwork],
    singles: Sequence[ClassificationResult],
    labelled: LabelledSplit,
    name: str,
    *,
    new: bool = False,
) -> ClassificationResult:
    """Averages the probabilities that several networks assign to the test videos, by weight.

    Args:
        singles: the results of :func:`classify`, in the order of `networks`.
    """
    weights = [network.weight for network in networks]

    def compute(folder: Path) -> tuple[np.ndarray, None]:
        files = [published(single).files.checked(PROBABILITIES_FILE) for single in singles]
        shares = [load_probabilities(file)[0] for file in files]
        share_NK = np.average(shares, axis=0, weights=weights).astype(np.float32)
        save_probabilities(folder, share_NK, labelled)
        return share_NK, None

    subjects = [network.subject for network in networks]
    return average_views(
        workspace, KIND, subjects, singles, labelled, name, compute, weights=weights, new=new
    )


# ── the file of probabilities ────────────────────────────────────────────────────────────────


def save_probabilities(folder: Path, share_NK: np.ndarray, labelled: LabelledSplit) -> None:
    """Writes probabilities.safetensors: the rows of predictions.csv, one column per class."""
    about = {
        "format": PROBABILITIES_FORMAT,
        "vidssl_version": VERSION,
        "classes": list(labelled.classes),
    }
    # One entry only: safetensors writes several in an order that changes from file to file.
    header = {HEADER: json.dumps(about, sort_keys=True)}
    blob = safetensors.numpy.save({"probabilities": share_NK}, header)
    atomic_write(folder / PROBABILITIES_FILE, blob)


def load_probabilities(path: Path) -> tuple[np.ndarray, list[str]]:
    """Reads probabilities.safetensors: float32 [N, K], and the names of the classes.

    Raises:
        VidsslError: no such file, damaged, of another kind or format, or with a probability that
            is not finite.
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
            share_NK, classes = file.get_tensor("probabilities"), about["classes"]
    except safetensors.SafetensorError as error:
        raise VidsslError(f"{path} is damaged: {error}") from error
    if not np.isfinite(share_NK).all():
        raise VidsslError(f"{path} has probabilities that are no numbers (NaN or infinite)")
    return share_NK, classes
