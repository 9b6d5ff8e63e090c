"""Today's code reads finetuned networks that version 1 wrote (see
tests/workspace/test_golden_formats.py).
"""

from __future__ import annotations

import csv
import json
import tarfile

import build_golden_finetune as golden
import numpy as np
import pytest
import torch
from paths import DATA

from vidssl.base.errors import VidsslError
from vidssl.evaluation.classification import read_report
from vidssl.evaluation.finetuned_accuracy import (
    PROBABILITIES_FILE,
    load_classifier,
    load_probabilities,
)
from vidssl.stages import verify
from vidssl.workspace.artifacts import MANIFEST, Artifact, canonical_digest
from vidssl.workspace.checkpoints import checkpoint_tensors, weights_digest
from vidssl.workspace.workspace import Workspace

ARCHIVE = DATA / "formats" / golden.ARCHIVE


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Workspace(tmp_path / "workspace")


def test_every_byte_is_what_its_record_says(workspace):
    findings = verify.run(workspace).findings
    assert [finding.artifact for finding in findings] == list(golden.LABELS)
    assert not any(finding.problems for finding in findings)


def test_the_network_is_rebuilt(workspace):
    (checkpoint,) = workspace.artifacts("checkpoint")
    classifier = load_classifier(checkpoint, "rgb")
    tensors = checkpoint_tensors(checkpoint)
    assert weights_digest({"rgb": classifier.encoder}, tensors) == checkpoint.digest
    assert all(value.equal(tensors[name]) for name, value in classifier.head().items())
    spec = classifier.spec
    x = torch.zeros(1, 1, spec.channels, spec.frames, spec.size, spec.size)
    with torch.inference_mode():
        shares = classifier.embed(x)
    assert shares.shape == (1, len(checkpoint.recipe["classes"]))
    assert shares.sum().item() == pytest.approx(1)


def test_the_figures_are_what_the_probabilities_say(workspace):
    (artifact,) = workspace.artifacts("finetune")
    share_NK, classes = load_probabilities(artifact.path / PROBABILITIES_FILE)
    report = read_report(artifact)
    assert classes == [row.name for row in report.classes]
    rows = list(csv.DictReader((artifact.path / "predictions.csv").open()))
    assert share_NK.shape == (len(rows), len(classes)) == (report.test_clips, len(classes))
    answers = [classes[k] for k in share_NK.argmax(1)]
    assert [row["class_1"] for row in rows] == answers
    right = [row["label"] == answer for row, answer in zip(rows, answers, strict=True)]
    assert report.top1 == pytest.approx(np.mean(right))
    assert artifact.recipe["protocol"]["crops"] == "ten"
    assert artifact.parents["checkpoint"] == workspace.newest("checkpoint").digest


def test_another_version_is_refused(workspace):
    (artifact,) = workspace.artifacts("finetune")
    path = artifact.path / MANIFEST
    text = json.loads(path.read_text()) | {"format_version": 99}
    body = {key: value for key, value in text.items() if key != "checksum"}
    path.write_text(json.dumps(body | {"checksum": canonical_digest(body)}))
    with pytest.raises(VidsslError, match=r"finetune.*99"):
        Artifact.load(artifact.path)
