"""`vidssl probe`: one stream, several streams, and what the user is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_workspace import vidssl
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.evaluation.feature_cache import load_features
from vidssl.evaluation.linear_probe import probabilities
from vidssl.evaluation.probed_accuracy import load_probe
from vidssl.evaluation.split_to_evaluate import FEWEST_TESTS, too_few
from vidssl.stages import probe
from vidssl.stages.probe import ProbeOptions
from vidssl.workspace.workspace import Workspace


def test_stage_reports_what_its_files_say(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws", clips=10)
    result = probe.run(workspace, ProbeOptions(settings=(("epochs", 20),)))
    report, artifact = result.report, result.stage.artifact
    assert artifact is not None and report is not None
    assert (report.train_clips, report.test_clips, report.split) == (24, 6, "split1")
    assert report.top5 is None and report.chance == pytest.approx(2 / 6)
    assert report.top1 > 0.9  # the shade of the noise is the class
    rows = list(csv.DictReader((artifact.path / "predictions.csv").open()))
    right = [row["label"] == row["class_1"] for row in rows]
    assert np.mean(right) == pytest.approx(report.top1)
    matrix = np.array(report.confusion)
    assert matrix.sum() == 6 and np.trace(matrix) / 6 == pytest.approx(report.top1)
    assert json.loads(json.dumps(result.as_dict()))["results"]["top1"] == report.top1
    assert artifact.recipe["settings"]["epochs"] == 20


def test_the_saved_probe_gives_the_same_answers(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    artifact = probe.run(workspace, ProbeOptions()).stage.artifact
    made, classes = load_probe(artifact.path / "probe.safetensors")
    features = load_features(workspace.by_digest(artifact.parents["features"]))
    share = probabilities(made, features.video_means())
    row = next(csv.DictReader((artifact.path / "predictions.csv").open()))
    video = features.ids.index(row["id"])
    assert classes[share[video].argmax()] == row["class_1"]
    assert f"{share[video].max():.4f}" == row["share_1"]


def test_a_second_run_is_found_and_a_new_one_has_the_same_bytes(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    first = probe.run(workspace, ProbeOptions())
    again = probe.run(workspace, ProbeOptions())
    assert again.stage.reused and again.report == first.report
    new = probe.run(workspace, ProbeOptions(new=True)).stage.artifact
    assert new.label == "probe/rgb-infonce/v002"
    assert new.payload == first.stage.artifact.payload


def test_shuffled_folders_are_not_told_apart(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 4 for n in range(160)], length=9)
    draw = np.random.default_rng(1)
    labels = draw.permutation([f"c{n % 2}" for n in range(160)]).tolist()
    words = ["test" if n % 2 else "train" for n in range(160)]
    table = annotate(workspace, pack, labels, {"s": words})
    make_checkpoint(workspace, pack, table, split="s")
    report = probe.run(workspace, ProbeOptions()).report
    assert abs(report.top1 - 0.5) < 3.5 * (0.25 / 80) ** 0.5


def test_features_are_shared_and_never_stale(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    probe.run(workspace, ProbeOptions(seed=1))
    assert len(workspace.artifacts("features")) == 1
    pack, table = workspace.newest("pack"), workspace.newest("annotations")
    make_checkpoint(workspace, pack, table, split="split1", seed=5)  # another epoch, same name
    probe.run(workspace, ProbeOptions())
    old, new = workspace.artifacts("features")
    assert old.name == new.name and old.digest != new.digest


def test_no_labels_is_one_sentence(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with pytest.raises(MissingInput, match="vidssl pretrain --stream rgb"):
        probe.run(workspace, ProbeOptions())
    pack = make_pack(workspace, [0, 1, 2])
    make_checkpoint(workspace, pack, split="all")
    with pytest.raises(MissingInput, match=r"vidssl pack VIDEOS --labels FILE\.csv"):
        probe.run(workspace, ProbeOptions())
    annotate(workspace, pack, ["", "", ""])
    with pytest.raises(MissingInput, match="--labels"):
        probe.run(workspace, ProbeOptions())


def test_a_split_that_leaks_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 2 for n in range(20)])
    one = ["test" if n < 4 else "train" for n in range(20)]
    two = ["test" if 2 <= n < 8 else "train" for n in range(20)]
    table = annotate(workspace, pack, splits={"one": one, "two": two})
    make_checkpoint(workspace, pack, table, split="one")
    assert probe.run(workspace, ProbeOptions()).stage.notes == too_few(4)
    note, _ = probe.run(workspace, ProbeOptions(split="two")).stage.notes
    assert note.startswith("4 of the 6 test videos were in the training set")
    with pytest.raises(VidsslError, match="did you mean one"):
        probe.run(workspace, ProbeOptions(split="ones"))


def test_a_small_test_part_is_told_by_every_evaluation(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")  # 6 test videos
    told = "the test part has only 6 videos: each counts 17 of 100 points, and one"
    for command in (["probe"], ["retrieve", "--evaluate"], ["probe", "--dry-run"]):
        notes = vidssl(*command, "--json", workspace=workspace.root).json["notes"]
        assert [note for note in notes if note.startswith(told)], command
    for command in (["probe"], ["retrieve", "--evaluate"], ["baselines"]):
        shown = vidssl(*command, workspace=workspace.root).out
        assert shown.replace("\n", " ").count(told) == 1, command
    assert too_few(FEWEST_TESTS) == [] and too_few(FEWEST_TESTS - 1)


def test_training_on_everything_leaks_everything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 2 for n in range(20)])
    make_checkpoint(workspace, pack, split="all")
    annotate(workspace, pack)
    result = probe.run(workspace, ProbeOptions())
    assert result.report.split == "80/20"
    assert result.stage.notes[0].startswith("4 of the 4 test videos")


# ── several streams


@pytest.fixture
def two_streams(tmp_path: Path) -> Workspace:
    """A pack of rgb and flow with an encoder of either."""
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 7 for n in range(70)], ("rgb", "flow"), length=9)
    words = ["test" if n < 28 else "train" for n in range(70)]
    # Labels half told by the shade, so that probabilities differ.
    labels = [f"c{n % 7 if n % 2 else (3 * n) % 7}" for n in range(70)]
    table = annotate(workspace, pack, labels, {"s": words})
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, pack, table, stream, split="s")
    return workspace


def test_two_streams_average_their_probabilities(two_streams: Workspace) -> None:
    result = probe.run(two_streams, ProbeOptions(streams=("rgb", "flow")))
    report, artifact = result.report, result.stage.artifact
    assert artifact.label == "probe/rgb-infonce_flow-infonce/v001"
    shares = []
    for role in ("probe", "probe2"):
        single = two_streams.by_digest(artifact.parents[role])
        features = load_features(two_streams.by_digest(single.parents["features"]))
        made, classes = load_probe(single.path / "probe.safetensors")
        shares.append(probabilities(made, features.video_means()))
    rows = list(csv.DictReader((artifact.path / "predictions.csv").open()))
    assert len(rows) == 28
    right = 0
    for row in rows:
        video = features.ids.index(row["id"])
        mean = [(float(a) + float(b)) / 2 for a, b in zip(*(s[video] for s in shares), strict=True)]
        best = max(range(len(mean)), key=mean.__getitem__)
        assert row["class_1"] == classes[best]
        assert float(row["share_1"]) == pytest.approx(mean[best], abs=6e-5)
        right += row["label"] == classes[best]
    assert report.top1 == pytest.approx(right / 28)
    assert [row.stream for row in report.streams] == ["rgb", "flow"]
    assert (report.stream, report.checkpoint) == (
        "rgb + flow", "checkpoint/rgb-infonce/v001 + checkpoint/flow-infonce/v001",
    )  # fmt: skip
    assert report.top5 is not None and 0 < report.top1 < report.top5
    again = probe.run(two_streams, ProbeOptions(streams=("rgb", "flow")))
    assert again.stage.reused and again.report == report
    assert len(json.loads(json.dumps(result.as_dict()))["results"]["streams"]) == 2


def test_a_streams_probe_is_found_whatever_its_name(two_streams: Workspace) -> None:
    alone = probe.run(two_streams, ProbeOptions(("flow-infonce",), name="mine"))
    both = probe.run(two_streams, ProbeOptions(("rgb-infonce", "flow-infonce"), name="both"))
    assert both.stage.artifact.parents["probe2"] == alone.stage.artifact.digest
    assert both.report.streams[1] == alone.report.as_view_row()
    assert [a.label for a in two_streams.artifacts("probe")] == [
        "probe/mine/v001",
        "probe/rgb-infonce/v001",
        "probe/both/v001",
    ]
    other = probe.run(two_streams, ProbeOptions(streams=("rgb", "flow"), seed=1))
    assert not other.stage.reused
    assert len(two_streams.artifacts("probe")) == 6


def test_the_plan_of_two_streams_does_nothing(two_streams: Workspace) -> None:
    result = probe.run(two_streams, ProbeOptions(streams=("rgb", "flow"), dry_run=True))
    assert result.report is None and not two_streams.artifacts("probe")
    plan = result.as_dict()["plan"]
    assert plan["makes"] == "probe/rgb-infonce_flow-infonce"
    assert plan["streams"]["probe2"]["settings"]["epochs"] == 100
    assert plan["inputs"]["checkpoint2"] == "checkpoint/flow-infonce/v001"


def test_bad_settings_are_usage_errors(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with pytest.raises(UsageError, match="did you mean epochs"):
        probe.run(workspace, ProbeOptions(settings=(("epoch", 3),)))
    with pytest.raises(UsageError, match="epochs must be at least 1"):
        probe.run(workspace, ProbeOptions(settings=(("epochs", 0),)))


def test_the_command_takes_a_recipes_probe_and_settings_over_it(tmp_path: Path) -> None:
    small_workspace(tmp_path / "ws")
    words = ["probe", "--recipe", "vicc-ucf101", "--set", "epochs=3", "--set", "lr=0.2", "--json"]
    vidssl(*words, workspace=tmp_path / "ws")
    (artifact,) = Workspace(tmp_path / "ws").artifacts("probe", "rgb-infonce")
    settings = artifact.recipe["settings"]
    assert (settings["epochs"], settings["lr"], settings["batch"]) == (3, 0.2, 128)
    assert artifact.recipe["first_rate"] == 0.2
    wrong = ["probe", "--recipe", "vicc-ucf11"]
    assert "did you mean vicc-ucf101" in " ".join(
        vidssl(*wrong, workspace=tmp_path / "ws", code=2).err.split()
    )


def test_damaged_features_are_refused(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    path = workspace.newest("features").path / "features.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VidsslError, match="damaged"):
        probe.run(workspace, ProbeOptions(seed=9))
