"""Today's code reads what version 1 wrote, and refuses in one sentence what it does not know.

tests/data/formats/v1.tar.xz was written once by tests/support/build_golden_formats.py and stays as
it is. When a format changes, its version goes up, a new archive comes beside this one, and this one
must still be read or be refused: never be misread.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import build_golden_formats as golden
import h5py
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from paths import DATA

from vidssl.base.errors import VidsslError
from vidssl.base.files import file_digest
from vidssl.dataset.annotations import Annotations
from vidssl.engine.resume import load_resume
from vidssl.evaluation import (
    classification,
    feature_cache,
    feature_file,
    features,
    probed_accuracy,
    recall,
)
from vidssl.evaluation.labelled_split import find_labels
from vidssl.shards import ShardReader
from vidssl.stages import verify
from vidssl.workspace.artifacts import FORMAT_VERSIONS, MANIFEST, Artifact, canonical_digest
from vidssl.workspace.checkpoints import checkpoint_encoder, load_encoder, weights_digest
from vidssl.workspace.workspace import Workspace

DATA = DATA / "formats"
VIDEOS = golden.videos()
OTHER = 99
KINDS = FORMAT_VERSIONS.keys() - {"view", "finetune"}  # which have archives of their own


@pytest.fixture
def folder(tmp_path) -> Path:
    with tarfile.open(DATA / golden.ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def workspace(folder) -> Workspace:
    return Workspace(folder / "workspace")


def only(workspace: Workspace, kind: str) -> Artifact:
    (artifact,) = workspace.artifacts(kind)
    return artifact


# ── reading ──────────────────────────────────────────────────────────────────────────────────


def test_the_archives_are_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 300_000


def test_there_is_one_artifact_of_every_kind(workspace):
    artifacts, problems = workspace.scan()
    assert not problems
    assert [a.label for a in artifacts] == [
        "flow/main/v001",
        "pack/main/v001",
        "annotations/main/v001",
        "checkpoint/rgb-infonce/v001",
        "features/rgb-infonce/v001",
        "probe/rgb-infonce/v001",
        "retrieval/rgb-infonce/v001",
    ]
    assert [a.sequence for a in artifacts] == [1, 2, 3, 4, 5, 6, 7]
    if set(FORMAT_VERSIONS.values()) == {1}:
        assert {a.kind for a in artifacts} == set(KINDS)


def test_every_byte_is_what_its_record_says(workspace):
    result = verify.run(workspace)
    assert result.ok, [f.problems for f in result.findings]
    assert len(result.findings) == 7


def test_lineage_and_identity(workspace):
    pack = only(workspace, "pack")
    checkpoint = only(workspace, "checkpoint")
    assert workspace.by_digest(pack.parents["flow"]) == only(workspace, "flow")
    assert set(checkpoint.parents) == {"pack", "annotations"}
    for artifact in workspace.artifacts():
        identity = {"recipe": artifact.recipe, "parents": artifact.parents}
        assert canonical_digest(identity) == artifact.run


@pytest.mark.parametrize("kind", ["flow", "pack"])
def test_shards(workspace, kind):
    artifact = only(workspace, kind)
    wanted = {"flow": golden.FLOW} | ({"rgb": golden.RGB} if kind == "pack" else {})
    with ShardReader(artifact.path) as reader:
        assert reader.views == wanted
        assert reader.digest == artifact.digest
        assert [reader.video_id(v) for v in range(len(reader))] == [i for i, _ in VIDEOS]
        assert reader.notes() == {VIDEOS[2][0]: "damaged after frame 6"}
        assert reader.videos.fps.tolist() == [25.0] * len(VIDEOS)
        assert reader.videos.width[0] == golden.WIDTH and reader.videos.height[0] == golden.HEIGHT
        for number in range(len(VIDEOS)):
            flow = reader.frames("flow", number, range(golden.FRAMES - 1))
            shown = [golden.flow_frame(number, t) for t in range(golden.FRAMES - 1)]
            np.testing.assert_array_equal(flow, shown)  # PNG is exact
        if kind == "pack":
            rgb = reader.frames("rgb", 5, range(golden.FRAMES)).astype(int)
            shown = np.stack([golden.rgb_frame(5, t) for t in range(golden.FRAMES)])
            assert np.abs(rgb - shown).mean() < 2  # JPEG is not
    if kind == "pack":
        assert len(list(artifact.path.glob("shard-*.h5"))) > 1


def test_quarantine(workspace):
    from vidssl.extraction.quarantine import read_quarantine

    rows = read_quarantine(only(workspace, "pack").path)
    assert rows == [("bad.mp4#ffffffffffff", "bad.mp4", "the file is empty")]


def test_annotations(workspace):
    artifact = only(workspace, "annotations")
    found = Annotations.load(artifact.path, [i for i, _ in VIDEOS])
    assert [found.classes[k] for k in found.labels] == [label for _, label in VIDEOS]
    assert len(found.group_names) == 4
    selection = found.select(None, seed=0)
    assert selection.name == golden.SPLIT
    assert selection.test.tolist() == [3, 7] and len(selection.train) == 6
    assert file_digest(artifact.path / "annotations.csv") == artifact.digest


def test_encoder(workspace):
    artifact = only(workspace, "checkpoint")
    encoder = checkpoint_encoder(artifact, "rgb")
    assert encoder.spec == golden.SPEC
    for name, value in encoder.state_dict().items():
        assert value.equal(golden.weight(name, value.shape)), name
    assert weights_digest({"rgb": encoder}) == artifact.digest


def test_features_are_those_that_todays_code_computes(workspace):
    artifact, checkpoint = only(workspace, "features"), only(workspace, "checkpoint")
    stored = feature_cache.load_features(artifact)
    assert stored.ids == tuple(i for i, _ in VIDEOS)
    with ShardReader(only(workspace, "pack").path) as reader:
        found = features.embed_videos(
            checkpoint_encoder(checkpoint, "rgb"), reader, range(len(reader)), stored.ids
        )
    assert stored.windows.shape == found.windows.shape == (len(stored.starts), 128)
    np.testing.assert_array_equal(stored.starts, found.starts)
    np.testing.assert_array_equal(stored.offsets, found.offsets)
    # Other processors and JPEG decoders differ in the last digits.
    scale = np.abs(stored.windows).max()
    assert np.abs(stored.windows - found.windows).max() < 0.02 * scale


def test_probe(workspace):
    artifact = only(workspace, "probe")
    report = classification.read_report(artifact)
    assert report.split == golden.SPLIT and (report.train_clips, report.test_clips) == (6, 2)
    assert report.top1 == artifact.summary["top1"]
    classifier, classes = probed_accuracy.load_probe(artifact.path / probed_accuracy.PROBE_FILE)
    assert classes == list(golden.LABELS)
    stored = feature_cache.load_features(only(workspace, "features"))
    from vidssl.evaluation.linear_probe import probabilities

    answers = probabilities(classifier, stored.video_means()).argmax(1)
    truth = np.array([golden.LABELS.index(label) for _, label in VIDEOS])
    assert (answers[[3, 7]] == truth[[3, 7]]).mean() == report.top1


def test_retrieval(workspace):
    artifact = only(workspace, "retrieval")
    report = recall.read_report(artifact)
    assert (report.queries, report.gallery) == (2, 6)
    split = find_labels(workspace, only(workspace, "pack"), [only(workspace, "checkpoint")], None)
    stored = feature_cache.load_features(only(workspace, "features"))
    again, _ = recall.measure_recall(
        [stored.video_means()], split, report.features, only(workspace, "pack")
    )
    assert _shares(again) == _shares(report)


def _shares(report: recall.RetrievalReport) -> list[tuple[int, float, float, int]]:
    """What was found; errors of shares of 0 and 1 were written as 0 at the time."""
    return [(row.k, row.recall, row.chance, row.queries) for row in report.recall]


def test_resume(folder):
    module, optimizer = golden.small_training()
    wanted = {name: value.clone() for name, value in module.state_dict().items()}
    state = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    with torch.no_grad():
        module.weight.zero_()
        module.queue.zero_()
    found = load_resume(folder, module, optimizer)
    assert found == {"epoch": 2, "step_in_epoch": 3, "log_rows": 4}
    assert all(value.equal(wanted[name]) for name, value in module.state_dict().items())
    assert json.loads(json.dumps(optimizer.state_dict()["param_groups"])) == state


# ── refusing ─────────────────────────────────────────────────────────────────────────────────


def refused(action) -> str:
    """Returns the sentence of a refusal that names the version found and the one that is read."""
    with pytest.raises(VidsslError) as caught:
        action()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(OTHER) in sentence and " 1" in sentence, sentence
    return sentence


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_artifact_of_an_unknown_version(workspace, kind):
    artifact = only(workspace, kind)
    path = artifact.path / MANIFEST
    text = json.loads(path.read_text()) | {"format_version": OTHER}
    body = {key: value for key, value in text.items() if key != "checksum"}
    path.write_text(json.dumps(body | {"checksum": canonical_digest(body)}))
    assert kind in refused(lambda: Artifact.load(artifact.path))
    # The rest of the workspace is still of use, and the artifact is not silently absent.
    artifacts, problems = workspace.scan()
    assert len(artifacts) == 6 and len(problems) == 1


def test_a_workspace_of_an_unknown_version(folder):
    path = folder / "workspace" / "workspace.json"
    path.write_text(json.dumps({"workspace_format": OTHER, "next_sequence": 8}))
    refused(lambda: Workspace(folder / "workspace"))


def test_a_shard_of_an_unknown_version(workspace):
    path = only(workspace, "pack").path / "shard-0000.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = OTHER
    refused(lambda: ShardReader(path.parent))


def test_an_encoder_of_an_unknown_version(workspace):
    path = only(workspace, "checkpoint").path / "encoder.rgb.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["vidssl"]) | {"format": OTHER}
    header = {"vidssl": json.dumps(about)}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, header)
    refused(lambda: load_encoder(path))


def test_features_of_an_unknown_version(workspace):
    path = only(workspace, "features").path / "features.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = OTHER
    refused(lambda: feature_file.load_features(path))


def test_a_probe_of_an_unknown_version(workspace):
    path = only(workspace, "probe").path / probed_accuracy.PROBE_FILE
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["vidssl-probe"]) | {"format": OTHER}
    header = {"vidssl-probe": json.dumps(about)}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, header)
    refused(lambda: probed_accuracy.load_probe(path))


def test_a_resume_of_an_unknown_version(folder):
    module, optimizer = golden.small_training()
    state = torch.load(folder / "resume.pt", weights_only=True) | {"format": OTHER}
    torch.save(state, folder / "resume.pt")
    refused(lambda: load_resume(folder, module, optimizer))


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04cut short"])
def test_a_damaged_resume_is_one_sentence(folder, content):
    module, optimizer = golden.small_training()
    (folder / "resume.pt").write_bytes(content)
    with pytest.raises(VidsslError, match=r"resume\.pt is damaged: remove that file"):
        load_resume(folder, module, optimizer)
