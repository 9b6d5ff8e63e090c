"""verify --repair makes again what sources and parents can make, and says so; nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_workspace import make_videos, vidssl
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace

from vidssl.base.errors import UsageError, VidsslError
from vidssl.shards import open_shards
from vidssl.stages import evaluate_retrieval, extract_flow, pack, probe, verify
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.stages.probe import ProbeOptions
from vidssl.stages.verify import VerifyOptions, VerifyResult
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with features, a probe and a retrieval; read only."""
    workspace = small_workspace(tmp_path_factory.mktemp("evaluated") / "ws", clips=5)
    probe.run(workspace, ProbeOptions(settings=(("epochs", 2),)))
    evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    return workspace.root


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, and a workspace with their flow and a pack of several shards; read only."""
    root = tmp_path_factory.mktemp("packed")
    videos, workspace = make_videos(root / "videos", clips=1), Workspace(root / "ws")
    flow = ExtractFlow(videos=videos, method="dis", workers=1, device="cpu", shard_bytes=1)
    extract_flow.run(workspace, flow)
    pack.run(workspace, Pack(videos=videos, workers=1, shard_bytes=1))
    assert len(list(root.glob("ws/pack/main/v001/shard-*.h5"))) == 3
    return root


@pytest.fixture
def workspace(evaluated: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(evaluated, tmp_path / "ws"))


def repaired(workspace: Workspace, videos: Path | None = None) -> VerifyResult:
    result = verify.run(workspace, VerifyOptions(repair=True, videos=videos, workers=1))
    json.dumps(result.as_dict())
    assert not list(workspace.root.glob(".repair-*"))
    return result


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_workspace_is_left_alone(workspace: Workspace) -> None:
    result = repaired(workspace)
    assert result.ok and not result.repairs


@pytest.mark.parametrize(
    "names",
    [
        ("features/rgb-infonce/v001/features.h5",),
        ("probe/rgb-infonce/v001/results.json", "probe/rgb-infonce/v001/probe.safetensors"),
        ("retrieval/rgb-infonce/v001/results.json", "retrieval/rgb-infonce/v001/neighbours.csv"),
        ("features/rgb-infonce/v001/features.h5", "probe/rgb-infonce/v001/predictions.csv"),
    ],
)
def test_what_parents_can_make_is_made_again_byte_for_byte(
    workspace: Workspace, names: tuple[str, ...]
) -> None:
    paths = [workspace.root / name for name in names]
    whole = [path.read_bytes() for path in paths]
    flip(paths[0])
    for path in paths[1:]:
        path.unlink()
    assert not verify.run(workspace).ok
    result = repaired(workspace)
    assert result.ok, result
    assert all(each.done and "byte for byte" in each.said for each in result.repairs)
    assert [path.read_bytes() for path in paths] == whole


def test_what_cannot_be_made_again_is_said_with_its_command(workspace: Workspace) -> None:
    encoder = workspace.root / "checkpoint/rgb-infonce/v001/encoder.rgb.safetensors"
    features = workspace.root / "features/rgb-infonce/v001/features.h5"
    flip(encoder)
    flip(features)
    result = repaired(workspace)
    first, second = result.repairs
    assert not (result.ok or first.done or second.done)
    assert "vidssl pretrain --stream rgb --name rgb-infonce" in first.said
    assert "encoder.rgb.safetensors is damaged" in second.said, "its parent is the reason"
    shown = vidssl("verify", "--repair", workspace=workspace.root, code=1).out
    assert "not repaired" in shown


def test_a_lost_manifest_is_said_with_the_command(workspace: Workspace) -> None:
    (workspace.root / "retrieval/rgb-infonce/v001/artifact.json").unlink()
    result = repaired(workspace)
    (repair,) = result.repairs
    assert not (result.ok or repair.done)
    assert "vidssl retrieve --evaluate --name rgb-infonce" in repair.said


def test_results_of_an_unknown_recipe_are_left_alone(workspace: Workspace) -> None:
    made = workspace.newest("probe")
    assert made is not None
    with workspace.open_run("probe", "other", {"stage": "probe"}, {}) as run:
        (run.folder / "results.json").write_text("{}")
        other = run.publish("0" * 64, {})
    (other.path / "results.json").write_text("[]")
    (repair,) = repaired(workspace).repairs
    assert not repair.done and "its recipe has not what a command needs" in repair.said


# ── shards ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["flow", "pack"])
def test_a_damaged_or_missing_shard_is_made_of_its_videos(
    packed: Path, tmp_path: Path, kind: str
) -> None:
    workspace = Workspace(shutil.copytree(packed / "ws", tmp_path / "ws"))
    before = workspace.newest(kind)
    assert before is not None
    flip(before.path / "shard-0001.h5")
    (before.path / "shard-0000.h5").unlink()
    (without,) = repaired(workspace).repairs
    assert not without.done and "--videos VIDEOS" in without.said
    result = repaired(workspace, packed / "videos")
    assert result.ok and result.repairs[0].done, result
    after = workspace.newest(kind)
    assert after is not None
    for field in ("label", "digest", "sequence", "run", "parents", "recipe"):
        assert getattr(after, field) == getattr(before, field)
    assert len(open_shards(after)) == 3
    (aside,) = after.path.parent.glob(".damaged-*")
    assert (aside / "shard-0001.h5").exists() and str(aside) in result.repairs[0].said


def test_other_videos_are_not_taken_for_the_packed_ones(packed: Path, tmp_path: Path) -> None:
    workspace = Workspace(shutil.copytree(packed / "ws", tmp_path / "ws"))
    shard = workspace.root / "pack/main/v001/shard-0000.h5"
    flip(shard)
    damaged = shard.read_bytes()
    one = next((packed / "videos").rglob("*.mp4"))
    (repair,) = repaired(workspace, one).repairs
    assert not repair.done and "vidssl pack VIDEOS" in repair.said
    assert shard.read_bytes() == damaged


def test_videos_without_repair_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="--repair"):
        verify.run(workspace, VerifyOptions(videos=Path("videos")))


# ── workspace.json ───────────────────────────────────────────────────────────────────────────

BROKEN = ["", "[]", "{}", "1", '"x"', "{", "[" * 100_000, '{"workspace_format": 1}'] + [
    f'{{"workspace_format": 1, "next_sequence": {number}}}'
    for number in ("0", "-4", "1.5", "true", "null", '"7"', "1e999", "NaN", "9" * 30, "[]")
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_damaged_number_fails_at_the_start_and_is_repaired(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path / "ws")
    made = make_pack(workspace, [0, 1], length=1)
    path = workspace.root / "workspace.json"
    path.write_text(text)
    with pytest.raises(VidsslError, match=r"workspace\.json is damaged") as caught:
        Workspace(workspace.root)
    assert "\n" not in str(caught.value)
    with pytest.raises(VidsslError, match=r"workspace\.json is damaged"):
        workspace.open_run("pack", "late", {}, {})
    damaged = Workspace(workspace.root, damaged=True)
    assert not verify.run(damaged).ok
    result = repaired(damaged)
    assert result.ok and [repair.what for repair in result.repairs] == [str(path)]
    again = make_pack(Workspace(workspace.root), [0, 1], length=1, seed=2)
    assert again.sequence == made.sequence + 1


@pytest.mark.parametrize("text", ['{"workspace_format": 1, "next_sequence": 1}', None])
def test_no_number_is_given_twice(tmp_path: Path, text: str | None) -> None:
    workspace = small_workspace(tmp_path / "ws", clips=2)
    path = workspace.root / "workspace.json"
    path.unlink() if text is None else path.write_text(text)
    assert verify.run(workspace).ok == (text is None)
    pack = workspace.newest("pack")
    assert pack is not None
    annotate(workspace, pack, splits={"other": ["train"] * 6})
    make_checkpoint(workspace, pack, seed=7)
    numbers = [artifact.sequence for artifact in workspace.artifacts()]
    assert numbers == [1, 2, 3, 4, 5] and verify.run(workspace).ok


def test_a_number_that_nobody_knows_is_refused_at_the_start(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    made = make_pack(workspace, [0, 1], length=1)
    (workspace.root / "workspace.json").unlink()
    (made.path / "artifact.json").write_text("{")
    with pytest.raises(VidsslError, match="tells no sequence number"):
        workspace.open_run("pack", "late", {}, {})
