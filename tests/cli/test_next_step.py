"""What is proposed to type next would work as typed, and nothing else is proposed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from cli_workspace import make_videos, vidssl
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.cli.next_step import after_packing, after_training
from vidssl.stages import cotrain, export, pretrain, probe
from vidssl.workspace import checkpoints, payload
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

COTRAINED = {"stage": "cotrain", "method_name": "coclr"}
CONTEXT = {"context": "gru", "project": None, "blocks": 4, "frames": 2}


def works(words: str, workspace: Workspace) -> bool:
    """Whether a command can begin: its own dry run goes through."""
    program, *rest = shlex.split(words)
    assert program == "vidssl"
    if rest[0] == "export":  # it has none, and does its work in a moment
        rest += ["--out", workspace.root / "exported"]
    else:
        rest.append("--dry-run")
    return vidssl(*rest, workspace=workspace.root, code=None).code == 0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def packed(workspace: Workspace, *views: str, labelled: bool = True) -> tuple[Artifact, Artifact]:
    pack = make_pack(workspace, [n % 2 for n in range(12)], views)
    labels = None if labelled else [""] * 12
    return pack, annotate(workspace, pack, labels)


def after(workspace: Workspace, made: Artifact, **told: str | None) -> str:
    words = after_training(workspace, made, **told)
    assert not words or works(words, workspace), words
    return words


def test_from_pack_to_probe(workspace):
    data = packed(workspace, "rgb", "flow")
    assert after_packing(workspace) == "vidssl pretrain --stream rgb"
    rgb = make_checkpoint(workspace, *data)
    assert after(workspace, rgb) == "vidssl pretrain --stream flow"
    flow = make_checkpoint(workspace, *data, stream="flow")
    assert after(workspace, flow) == "vidssl cotrain --stream rgb --k 5"
    taught = make_checkpoint(workspace, *data, name="rgb-coclr", recipe=COTRAINED)
    assert after(workspace, taught) == "vidssl probe"
    taught = make_checkpoint(workspace, *data, "flow", name="flow-coclr", recipe=COTRAINED)
    assert after(workspace, taught) == "vidssl probe --stream flow"


def test_the_pair_is_trained_as_the_first_was(workspace):
    pack, labels = packed(workspace, "rgb", "flow")
    labels = annotate(workspace, pack, splits={"split 2": ["train", "test"] * 6})
    rgb = make_checkpoint(workspace, pack, labels, split="split 2")
    told = {"method": "vicc", "recipe": "cpu", "pack": "main", "split": "split 2", "device": "cpu"}
    assert after(workspace, rgb, **told) == (
        "vidssl pretrain --stream flow --method vicc --recipe cpu --pack main --split 'split 2' "
        "--device cpu"
    )


def test_a_proposal_runs_no_stage_and_reads_no_weights(workspace, monkeypatch):
    """Manifests, annotations and headers tell enough; a command is not run twice for a hint."""
    data = packed(workspace, "rgb", "flow")
    rgb = make_checkpoint(workspace, *data)

    def refuse(*given, **named):
        raise AssertionError("a proposal did a stage's work")

    for stage in (pretrain, cotrain, probe, export):
        monkeypatch.setattr(stage, "run", refuse)
    monkeypatch.setattr(pretrain, "plan_pretraining", refuse)
    monkeypatch.setattr(cotrain, "plan_cotraining", refuse)
    monkeypatch.setattr(checkpoints, "load_encoder", refuse)
    monkeypatch.setattr(payload, "file_digest", refuse)
    assert after_training(workspace, rgb) == "vidssl pretrain --stream flow"
    flow = make_checkpoint(workspace, *data, stream="flow")
    assert after_training(workspace, flow) == "vidssl cotrain --stream rgb --k 5"
    for view in ("rgb", "flow"):
        taught = make_checkpoint(workspace, *data, view, name=f"{view}-coclr", recipe=COTRAINED)
    assert after_training(workspace, taught) == "vidssl probe --stream flow"


def test_too_few_videos_for_five_positives_are_not_cotrained(workspace):
    """`--k 5` leaves no negatives among five keys, so that the command would fail."""
    pack = make_pack(workspace, [0, 1, 0, 1, 0], ("rgb", "flow"))
    labels = annotate(workspace, pack)
    for stream in ("rgb", "flow"):
        made = make_checkpoint(workspace, pack, labels, stream, split="all")
    assert "cotrain" not in after(workspace, made)


def test_without_flow_in_the_pack_no_flow_is_proposed(workspace):
    assert after(workspace, make_checkpoint(workspace, *packed(workspace, "rgb"))) == "vidssl probe"


def test_without_labels_no_probe_is_proposed(workspace, monkeypatch):
    data = packed(workspace, "rgb", "flow", labelled=False)
    for stream in ("rgb", "flow"):
        made = make_checkpoint(workspace, *data, stream, split="all")
    assert after(workspace, made) == "vidssl cotrain --stream rgb --k 5"
    rgb = make_checkpoint(workspace, *data, split="all", name="rgb-coclr", recipe=COTRAINED)
    assert after(workspace, rgb) == "vidssl cotrain --stream flow --k 5"
    flow = make_checkpoint(
        workspace, *data, "flow", split="all", name="flow-coclr", recipe=COTRAINED
    )
    assert after(workspace, flow) == "vidssl export --stream flow"
    monkeypatch.chdir(workspace.root)
    (workspace.root / "flow-coclr-v001-flow-safetensors").mkdir()  # it was exported before
    assert after(workspace, flow) == ""


def test_one_class_cannot_be_probed(workspace):
    pack = make_pack(workspace, [0] * 6)
    made = make_checkpoint(workspace, pack, annotate(workspace, pack))
    assert after(workspace, made) == "vidssl export"


def test_vicc_goes_on_across_streams_and_cpc_does_not(workspace):
    data = packed(workspace, "rgb", "flow")
    for stream in ("rgb", "flow"):
        made = make_checkpoint(workspace, *data, stream, recipe={"method_name": "vicc"})
    assert after(workspace, made) == "vidssl cotrain --method vicc --stream rgb"
    for stream in ("rgb", "flow"):
        made = make_checkpoint(
            workspace, *data, stream, name=f"{stream}-cpc", spec=CONTEXT,
            recipe={"method_name": "cpc"},
        )  # fmt: skip
    assert after(workspace, made) == "vidssl probe --stream flow"


def test_one_video_is_packed_and_nothing_is_proposed(tmp_path):
    videos = make_videos(tmp_path / "videos", clips=1)
    one = next(videos.rglob("*.mp4"))
    first = vidssl("extract-flow", one, "--workers", 1, workspace=tmp_path / "w")
    assert f"next: vidssl pack {one} -w" in first.out.replace("\n", "")
    assert "next:" not in vidssl("pack", one, "--workers", 1, workspace=tmp_path / "w").out
    assert after_packing(Workspace(tmp_path / "w")) == ""
    assert after_packing(Workspace(tmp_path / "nowhere")) == ""
