"""The pipeline as typed, on generated video: inputs found, artifacts versioned, runs identified."""

import csv
import json
import subprocess
import sys

import pytest
from cli_workspace import CLIPS_PER_CLASS, SMALL, STEPS, make_videos, vidssl
from patience import PATIENCE

from vidssl.workspace.workspace import Workspace

CLIPS = CLIPS_PER_CLASS * len(STEPS)


def test_every_stage_wrote_one_artifact_with_its_parents(finished):
    workspace = Workspace(finished["workspace"])
    artifacts = {a.label: a for a in workspace.artifacts()}
    assert list(artifacts) == [
        "flow/main/v001",
        "pack/main/v001",
        "annotations/main/v001",
        "checkpoint/rgb-infonce/v001",
        "checkpoint/flow-infonce/v001",
        "checkpoint/rgb-coclr/v001",
    ]
    pack, student = artifacts["pack/main/v001"], artifacts["checkpoint/rgb-coclr/v001"]
    assert pack.parents == {"flow": artifacts["flow/main/v001"].digest}
    assert student.parents == {
        "pack": pack.digest,
        "annotations": artifacts["annotations/main/v001"].digest,
        "student": artifacts["checkpoint/rgb-infonce/v001"].digest,
        "partner": artifacts["checkpoint/flow-infonce/v001"].digest,
    }
    assert student.recipe["method"]["k"] == 2
    assert student.recipe["clip"] == {"frames": 4, "stride": 1, "size": 32}


def test_the_same_command_finds_what_is_finished(finished):
    videos, workspace = finished["videos"], finished["workspace"]
    for command in (
        ["extract-flow", videos],
        ["pack", videos],
        ["pretrain", "--stream", "rgb", *SMALL],
        ["cotrain", "--stream", "rgb", "--k", 2, *SMALL],
    ):
        result = vidssl(*command, "--json", workspace=workspace).json
        assert result["reused"], command
        assert result["artifact"].endswith("/v001")


def test_new_repeats_a_run_and_gives_the_same_weights(copied):
    again = ["pretrain", "--stream", "rgb", *SMALL, "--new", "--json"]
    result = vidssl(*again, workspace=copied["workspace"]).json
    assert result["artifact"] == "checkpoint/rgb-infonce/v002"
    first = Workspace(copied["workspace"]).resolve("checkpoint", "rgb-infonce/v001")
    assert result["digest"] == first.digest


def test_cotrain_takes_the_newest_of_both_streams(copied):
    workspace = copied["workspace"]
    found = Workspace(workspace)
    result = vidssl("cotrain", "--stream", "flow", "--k", 2, *SMALL, workspace=workspace)
    assert "partner checkpoint/rgb-coclr/v001" in result.err
    flow = found.resolve("checkpoint", "flow-coclr")
    assert flow.parents["partner"] == found.resolve("checkpoint", "rgb-coclr").digest
    # The partner of rgb is newer now, so the same words mean the next cycle.
    result = vidssl(
        "cotrain", "--stream", "rgb", "--k", 2, *SMALL, "--json", workspace=workspace
    ).json
    assert result["artifact"] == "checkpoint/rgb-coclr/v002"
    second = found.resolve("checkpoint", "rgb-coclr/v002")
    assert second.parents["student"] == found.resolve("checkpoint", "rgb-coclr/v001").digest
    assert second.parents["partner"] == flow.digest


def test_cycles_begin_with_the_pretrained_pair_and_repeat_nothing(copied):
    workspace = copied["workspace"]
    command = ["cotrain", "--cycles", 2, "--k", 2, *SMALL, "--json"]
    first = vidssl(*command, workspace=workspace).json["runs"]
    assert [run["artifact"] for run in first] == [
        "checkpoint/rgb-coclr/v001",
        "checkpoint/flow-coclr/v001",
        "checkpoint/rgb-coclr/v002",
        "checkpoint/flow-coclr/v002",
    ]
    assert [run["reused"] for run in first] == [True, False, False, False]
    again = vidssl(*command, workspace=workspace).json["runs"]
    assert all(run["reused"] for run in again)
    assert [run["artifact"] for run in again] == [run["artifact"] for run in first]


def test_cycles_begin_with_the_stream_that_is_named(copied):
    planned = vidssl(
        "cotrain", "--cycles", 2, "--stream", "flow", "--k", 2, *SMALL, "--dry-run", "--json",
        workspace=copied["workspace"],
    ).json["runs"]  # fmt: skip
    assert [run["plan"]["makes"] for run in planned] == ["checkpoint/flow-coclr"]
    assert planned[0]["notes"][-1] == (
        "4 turns, each from what came before: flow, rgb, flow, rgb; this is the first"
    )


def test_probe_reports_every_class(copied):
    result = vidssl("probe", "--json", workspace=copied["workspace"]).json
    assert not any("training" in note for note in result["notes"]), "no test clip was trained on"
    result = result["results"]
    assert result["checkpoint"] == "checkpoint/rgb-coclr/v001"
    assert [row["name"] for row in result["classes"]] == sorted(STEPS)
    assert result["train_clips"] + result["test_clips"] == CLIPS
    shown = vidssl("probe", "--stream", "flow", workspace=copied["workspace"])
    assert all(label in shown.out for label in STEPS)


def test_probe_averages_two_streams(copied):
    result = vidssl("probe", "--stream", "rgb,flow", "--json", workspace=copied["workspace"]).json
    assert result["artifact"] == "probe/rgb-coclr_flow-infonce/v001"
    streams = [(row["stream"], row["checkpoint"]) for row in result["results"]["streams"]]
    assert streams == [
        ("rgb", "checkpoint/rgb-coclr/v001"),
        ("flow", "checkpoint/flow-infonce/v001"),
    ]
    given = ["-c", "rgb-coclr", "-c", "flow-infonce"]
    shown = vidssl("probe", *given, workspace=copied["workspace"])
    assert "finished before" in shown.out
    assert all(word in shown.out for word in ("mean", "stream", *STEPS))
    vidssl("verify", "probe/rgb-coclr_flow-infonce", workspace=copied["workspace"])


def test_finetune_trains_tests_and_averages(copied):
    workspace = copied["workspace"]
    small = SMALL[:-2]  # there is no queue
    result = vidssl("finetune", "-c", "rgb-coclr", *small, "--json", workspace=workspace).json
    assert result["artifact"] == "finetune/rgb-coclr/v001"
    assert [t["artifact"] for t in result["trainings"]] == ["checkpoint/rgb-coclr-finetuned/v001"]
    assert result["results"]["test_clips"] + result["results"]["train_clips"] == CLIPS
    both = ["finetune", "-c", "rgb-coclr", "-c", "flow-infonce", "--crops", "ten", *small]
    shown = vidssl(*both, workspace=workspace)
    assert all(word in shown.out for word in ("mean", "top-1 %", *STEPS))
    assert "finetune/rgb-coclr_flow-infonce/v001" in shown.out
    assert vidssl(*both, "--json", workspace=workspace).json["reused"]
    assert "plan" in vidssl(*both, "--new", "--dry-run", workspace=workspace).out
    vidssl("retrieve", "--evaluate", "-c", "rgb-coclr-finetuned", workspace=workspace)
    assert "stale" not in vidssl("status", workspace=workspace).out
    vidssl("verify", workspace=workspace)
    # What is finetuned is no student and no partner.
    vidssl("cotrain", "--stream", "flow", "--k", 2, *SMALL, workspace=workspace)
    flow = Workspace(workspace).resolve("checkpoint", "flow-coclr")
    assert flow.parents["partner"] == finished_digest(workspace, "rgb-coclr")


def finished_digest(workspace, name):
    return Workspace(workspace).resolve("checkpoint", name).digest


def test_retrieve_evaluates_one_stream_and_both(copied):
    for stream in ("rgb", "flow", "rgb,flow"):
        result = vidssl(
            "retrieve", "--evaluate", "--stream", stream, "--json", workspace=copied["workspace"]
        ).json["results"]
        assert [row["k"] for row in result["recall"]] == [1, 5, 10, 20, 50]
        shares = [row["recall"] for row in result["recall"]]
        assert shares == sorted(shares)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_retrieve_finds_a_file_and_draws_its_sheet(copied, tmp_path, stream):
    query = copied["videos"] / "left" / "left_0.mp4"
    sheet = tmp_path / "sheet.png"
    arguments = ["retrieve", query, "--stream", stream, "--keep-self", "--k", 3]
    result = vidssl(*arguments, "--sheet", sheet, "--json", workspace=copied["workspace"]).json
    (answer,) = result["answers"]
    assert len(answer["neighbours"]) == 3
    nearest = answer["neighbours"][0]
    assert nearest["video"] == "left/left_0.mp4" and nearest["similarity"] > 0.99
    assert sheet.read_bytes().startswith(b"\x89PNG")
    shown = vidssl("retrieve", query, "--stream", stream, workspace=copied["workspace"])
    assert "similarity" in shown.out and "left_0.mp4" in shown.out


def test_three_splits_need_one_pack(tmp_path):
    videos, workspace = make_videos(tmp_path / "videos", clips=2), tmp_path / "workspace"
    table = tmp_path / "splits.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group", "split1", "split2"])
        for label in STEPS:
            rows.writerow([f"{label}/{label}_0.mp4", label, f"{label}a", "train", "test"])
            rows.writerow([f"{label}/{label}_1.mp4", label, f"{label}b", "test", "train"])
    vidssl("pack", videos, "--views", "rgb", "--workers", 1, workspace=workspace)
    vidssl("pack", videos, "--views", "rgb", "--labels", table, workspace=workspace)
    labels = [a.label for a in Workspace(workspace).artifacts()]
    assert labels == ["pack/main/v001", "annotations/main/v001", "annotations/main/v002"]
    small = [*SMALL, "--set", "queue=3", "--batch-size", 3]
    for split in ("split1", "split2"):
        vidssl("pretrain", "--split", split, *small, workspace=workspace)
    found = Workspace(workspace).artifacts("checkpoint")
    assert [a.recipe["split"] for a in found] == ["split1", "split2"]
    assert [a.summary["training_videos"] for a in found] == [3, 3]


def test_a_flat_folder_without_labels_trains_on_everything(tmp_path):
    nested, flat = make_videos(tmp_path / "nested", clips=2), tmp_path / "flat"
    flat.mkdir()
    for path in nested.rglob("*.mp4"):
        path.rename(flat / path.name)
    (flat / "notes.txt").write_text("no video, skipped without a word")
    workspace = tmp_path / "workspace"
    vidssl("extract-flow", flat, "--workers", 1, workspace=workspace)
    vidssl("pack", flat, workspace=workspace)
    result = vidssl("pretrain", *SMALL, "--json", workspace=workspace).json
    assert result["summary"]["training_videos"] == 6
    query = next(flat.glob("*.mp4"))
    answer = vidssl("retrieve", query, "--json", workspace=workspace).json["answers"][0]
    assert all(n["label"] is None for n in answer["neighbours"])


def test_snapshots_are_artifacts_of_their_own(copied):
    workspace = copied["workspace"]
    arguments = ["pretrain", "--name", "snapped", *SMALL, "--snapshot-epochs", 1]
    vidssl(*arguments, workspace=workspace)
    first, last = Workspace(workspace).artifacts("checkpoint", "snapped")
    assert (first.summary["epochs"], last.summary["epochs"]) == (1, 2)
    assert first.digest != last.digest and "resume.pt" not in first.payload
    vidssl("probe", "--checkpoint", "snapped/v001", workspace=workspace)


def test_init_from_starts_from_a_checkpoint(copied):
    workspace = copied["workspace"]
    arguments = ["pretrain", "--name", "more", "--init-from", "rgb-infonce", *SMALL]
    vidssl(*arguments, workspace=workspace)
    more = Workspace(workspace).resolve("checkpoint", "more")
    assert more.parents["init"] == Workspace(workspace).resolve("checkpoint", "rgb-infonce").digest


@pytest.mark.parametrize(
    "command",
    [
        ["extract-flow", "VIDEOS", "--method", "farneback"],
        ["pack", "VIDEOS", "--size", "40"],
        ["pretrain", "--epochs", "7"],
        ["cotrain", "--stream", "flow", "--k", "3"],
        ["probe"],
        ["retrieve", "--evaluate"],
    ],
    ids=lambda c: c[0],
)
def test_dry_run_prints_the_plan_and_does_nothing(finished, command):
    command = [finished["videos"] if word == "VIDEOS" else word for word in command]
    before = sorted(finished["workspace"].rglob("*"))
    result = vidssl(*command, "--dry-run", workspace=finished["workspace"])
    assert "plan" in result.out
    json.loads(vidssl(*command, "--dry-run", "--json", workspace=finished["workspace"]).out)
    assert sorted(finished["workspace"].rglob("*")) == before


def test_status_and_verify(copied):
    workspace = copied["workspace"]
    assert "rgb-coclr" in vidssl("status", workspace=workspace).out
    vidssl("verify", workspace=workspace)
    # Another pack makes what descends from the first one stale.
    vidssl("pack", copied["videos"], "--size", 40, workspace=workspace)
    assert "stale" in vidssl("status", workspace=workspace).out


def test_module_runs_as_a_program(finished):
    command = [sys.executable, "-m", "vidssl", "pretrain", *SMALL, "-w", finished["workspace"]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0 and "finished before" in done.stdout


def torchrun(*arguments, workspace):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2,
        "-m", "vidssl", *arguments, *SMALL, "-w", workspace,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchrun_trains_and_publishes_once(copied):
    workspace = copied["workspace"]
    said = torchrun("pretrain", "--name", "two", "--json", workspace=workspace)
    assert json.loads(said)["artifact"] == "checkpoint/two/v001"
    assert len(Workspace(workspace).artifacts("checkpoint", "two")) == 1
    again = torchrun("pretrain", "--name", "two", workspace=workspace)
    assert again.count("checkpoint/two/v001") == 1 and "finished before" in again


@pytest.mark.slow
def test_torchrun_goes_through_cycles(copied):
    said = torchrun("cotrain", "--cycles", 1, "--k", 2, "--json", workspace=copied["workspace"])
    assert [run["artifact"] for run in json.loads(said)["runs"]] == [
        "checkpoint/rgb-coclr/v001",
        "checkpoint/flow-coclr/v001",
    ]
