"""Trains a linear probe on features, tests it, and publishes an artifact of kind probe.

The artifact holds the report, the predictions, and the classifier itself in probe.safetensors.

Legend: V videos of the pack, N test videos, D feature width, K classes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from vidssl.base.device import choose_device
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.finite_values import check_finite
from vidssl.base.progress import SILENT, Progress
from vidssl.base.stored_json import parse_json, record
from vidssl.evaluation.classification import (
    ClassificationResult,
    ReportLabels,
    measure_accuracy,
    publish_report,
)
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.evaluation.linear_probe import LinearProbe, ProbeConfig, probabilities, train_probe
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.run import Run

PROBE_FILE = "probe.safetensors"
PROBE_FORMAT = 1


def probe_features(
    run: Run,
    means_VD: np.ndarray,
    labelled: LabelledSplit,
    of: ReportLabels,
    config: ProbeConfig,
    seed: int,
    *,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress = SILENT,
) -> ClassificationResult:
    """Trains a probe on the train part's features, tests it, and publishes the run.

    Args:
        means_VD: float32, the mean feature of each video in `labelled.ids`.
        of: the labels for the report.
        encoder: digest of the checkpoint that the features come from; None: hand-made features.
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
    test_NK = share_VK[labelled.test]
    report = measure_accuracy(test_NK, labelled, of, train_top1(share_VK, labelled))
    weights = save_probe(run.folder, probe, of.view, encoder, labelled)
    content = canonical_digest({"report": asdict(report), "weights": weights})
    digest = canonical_digest({"recipe": run.recipe, "content": content})
    return publish_report(run, report, test_NK, labelled, digest)


def train_top1(share_VK: np.ndarray, labelled: LabelledSplit) -> float:
    """Returns the share of the training videos whose likeliest class is the right one."""
    answers = share_VK[labelled.train].argmax(1)
    return float((answers == labelled.labels[labelled.train]).mean())


# ── the classifier's file ────────────────────────────────────────────────────────────────────


def save_probe(
    folder: Path, probe: LinearProbe, view: str, encoder: str | None, labelled: LabelledSplit
) -> dict[str, Any]:
    """Writes probe.safetensors, and returns its tensors as lists.

    Raises:
        VidsslError: the classifier has values that are not finite.
    """
    check_finite(probe.state_dict(), "the classifier")
    # One entry only: safetensors writes several in an order that changes from file to file.
    about = {
        "format": PROBE_FORMAT,
        "vidssl_version": VERSION,
        "classes": list(labelled.classes),
        "stream": view,
        "encoder": encoder,
    }
    header = {"vidssl-probe": json.dumps(about, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in probe.state_dict().items()}
    atomic_write(folder / PROBE_FILE, safetensors.torch.save(state, header))
    return {k: v.tolist() for k, v in state.items()}


def load_probe(path: Path) -> tuple[LinearProbe, list[str]]:
    """Reads probe.safetensors: the classifier in eval mode, and the names of its classes.

    Raises:
        VidsslError: no such file, not a probe, damaged, of an unknown format, or with values that
            are not finite.
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
    about = parse_json(header["vidssl-probe"], path)
    version = about.get("format") if isinstance(about, dict) else None
    if version != PROBE_FORMAT:
        raise VidsslError(
            f"{path} has probe format {version}, and this vidssl ({VERSION}) reads "
            f"format {PROBE_FORMAT}"
        )
    classes = list(record(_About, about, path, ignore=True).classes)
    check_finite(state, path)
    weight = state.get("fc.weight")
    if weight is None or weight.ndim != 2:
        raise VidsslError(f"{path} is damaged: it has no matrix fc.weight")
    probe = LinearProbe(weight.shape[1], len(classes))
    try:
        probe.load_state_dict(state, strict=True)
    except RuntimeError:
        raise VidsslError(f"{path} is damaged: its tensors are not those of a probe") from None
    return probe.eval(), classes


@dataclass(frozen=True)
class _About:
    """What is read of the header of probe.safetensors."""

    classes: list[str]


def read_probe(artifact: Artifact) -> tuple[LinearProbe, list[str]]:
    """Reads the classifier of a probe artifact, as :func:`load_probe`, after checking its bytes.

    Raises:
        VidsslError: the file is missing, or was changed.
    """
    return load_probe(artifact.files.checked(PROBE_FILE))
