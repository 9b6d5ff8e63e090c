"""A bad input costs the user one sentence and the right exit code, and loses nothing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_workspace import SMALL, make_videos, vidssl
from typer.testing import CliRunner
from video_files import moving_square, write_sound, write_video

from vidssl.cli import app
from vidssl.workspace.artifacts import canonical_digest
from vidssl.workspace.workspace import Workspace


def sentence(result) -> str:
    """Returns what was said of the error, and checks that it is one line without a traceback."""
    assert "Traceback" not in result.err + result.out
    lines = [line for line in result.err.splitlines() if line.startswith("vidssl: ")]
    assert len(lines) == 1, result.err
    return lines[0]


def refused(*arguments, workspace, code=1) -> str:
    return sentence(vidssl(*arguments, workspace=workspace, code=code))


def test_no_such_folder(tmp_path):
    said = refused("extract-flow", tmp_path / "nowhere", workspace=tmp_path / "w")
    assert "nowhere" in said
    assert not (tmp_path / "w").exists()


def test_folder_without_video(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("no video")
    for command in ("extract-flow", "pack"):
        assert "photos" in refused(command, tmp_path / "photos", workspace=tmp_path / "w")


@pytest.mark.parametrize(
    ("command", "makes_it"),
    [
        (["pretrain"], "vidssl pack"),
        (["cotrain"], "vidssl pretrain --stream rgb"),
        (["probe"], "vidssl pretrain"),
        (["retrieve", "--evaluate"], "vidssl pretrain"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_workspace_that_lacks_the_input_names_the_command_that_makes_it(
    tmp_path, command, makes_it
):
    assert makes_it in refused(*command, workspace=tmp_path / "empty")


def test_cotrain_without_a_partner_names_the_command(copied):
    shutil.rmtree(copied["workspace"] / "checkpoint" / "flow-infonce")
    said = refused("cotrain", "--stream", "rgb", workspace=copied["workspace"])
    assert "vidssl pretrain --stream flow" in said


def test_a_stream_that_was_not_packed(tmp_path):
    videos = make_videos(tmp_path / "videos", clips=1)
    vidssl("pack", videos, workspace=tmp_path / "w")
    said = refused("pretrain", "--stream", "flow", *SMALL, workspace=tmp_path / "w")
    assert "vidssl extract-flow VIDEOS" in said


def test_broken_files_are_left_out_with_their_reason_and_exit_code_3(tmp_path):
    videos = make_videos(tmp_path / "videos", clips=2)
    good = sorted(videos.rglob("*.mp4"))
    (videos / "empty.mp4").touch()
    (videos / "cut.mp4").write_bytes(good[0].read_bytes()[:200])
    write_sound(videos / "sound.mp4")
    (videos / "text.mp4").write_text("this is no video")
    result = vidssl("extract-flow", videos, "--json", workspace=tmp_path / "w", code=3).json
    assert {row["video"] for row in result["quarantined"]} == {
        "empty.mp4", "cut.mp4", "sound.mp4", "text.mp4",
    }  # fmt: skip
    assert all(row["reason"] for row in result["quarantined"])
    assert result["summary"]["videos"] == len(good)


def test_a_video_of_one_frame_is_in_no_pack_with_flow_and_is_told_of_each_time(tmp_path):
    videos = make_videos(tmp_path / "videos", clips=1)
    write_video(videos / "still.mp4", moving_square(1))
    (videos / "sound.wav").write_bytes(b"RIFF")  # no video by its name: skipped without a word
    workspace, still = tmp_path / "w", {"video": "still.mp4"}
    for command, reason in (
        ("extract-flow", "it has one frame only, and flow needs two"),
        ("pack", "no flow for it: it has one frame only, and flow needs two"),
        ("pack", "no flow for it: it has one frame only, and flow needs two"),  # finished before
    ):
        said = vidssl(command, videos, "--json", workspace=workspace, code=3).json
        assert said["quarantined"] == [still | {"reason": reason}]
        assert said["summary"]["videos"] == 3
        shown = vidssl(command, videos, workspace=workspace, code=3).out.replace("\n", " ")
        assert f"left out: still.mp4: {reason}" in shown
    alone = vidssl("pack", videos, "--views", "rgb", "--json", workspace=workspace).json
    assert (alone["summary"]["videos"], alone["quarantined"]) == (4, [])
    small = [*SMALL, "--set", "queue=4"]
    assert vidssl("pretrain", *small, "--json", workspace=workspace).json["summary"]["loss"] > 0


def test_nothing_but_broken_files_makes_no_artifact(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "empty.mp4").touch()
    refused("extract-flow", tmp_path / "videos", workspace=tmp_path / "w")
    assert Workspace(tmp_path / "w").artifacts() == []


def test_a_clip_longer_than_the_videos_is_padded_not_dropped(copied):
    arguments = ["pretrain", "--name", "long", *SMALL, "--set", "frames=16", "--json"]
    result = vidssl(*arguments, workspace=copied["workspace"]).json
    assert result["summary"]["training_videos"] > 0


# Nothing of what these name is there, neither workspace nor file: the option is told all the same.
WRONG_OPTIONS = [
    ("extract-flow nowhere --method tvl", "did you mean tvl1"),
    ("extract-flow nowhere --codec webm", "jpeg95"),
    ("extract-flow nowhere --size -3", "--size -3"),
    ("extract-flow nowhere --bound 0", "--bound 0"),
    ("extract-flow nowhere --name ../x", "letters"),
    ("pack nowhere --views rgb,flw", "did you mean flow"),
    ("pack nowhere --views flow", "--views rgb or rgb,flow"),
    ("pack nowhere --size 3", "--size 3"),
    ("pack nowhere --labels folder", "did you mean folders"),
    ("pack nowhere --group-pattern (", "no regular expression"),
    ("pack nowhere --name ../x", "letters"),
    ("pretrain --stream flw", "did you mean flow"),
    ("pretrain --method infonse", "did you mean infonce"),
    ("pretrain --recipe papr", "did you mean paper"),
    ("pretrain --backbone s3dd", "did you mean s3d"),
    ("pretrain --set temprature=0.1", "did you mean temperature"),
    ("pretrain --set temperature=warm", "takes a number"),
    ("pretrain --set temperature=0", "temperature must be above 0"),
    ("pretrain --set temperature", "FIELD=VALUE"),
    ("pretrain --set momentum=1.5", "momentum"),
    ("pretrain --set lr=inf", "lr takes a number"),
    ("pretrain --set lr=-1", "lr must be 0 or more"),
    ("pretrain --set optimizer=adm", "did you mean adam"),
    ("pretrain --set frames=0", "frames must be at least 1"),
    ("pretrain --set crop_area_min=2", "crop_area_min must be"),
    ("pretrain --set flip=2", "flip must be a probability"),
    ("pretrain --set blocks=2", "takes clips whole"),
    ("pretrain --method cpc --set blocks=2", "more than 2, such as"),
    ("pretrain --device tpu", "cpu and cuda"),
    ("pretrain --name ../x", "letters"),
    (f"pretrain --name {'x' * 201}", "at most 200 characters"),
    ("pretrain --epochs 40 --snapshot-epochs 500", "--snapshot-epochs"),
    ("cotrain --stream flw", "did you mean flow"),
    ("cotrain --method coclrr", "did you mean coclr"),
    ("cotrain --backbone s3dd", "did you mean s3d"),
    ("cotrain --k 99 --set queue=8", "queue"),
    ("cotrain --device tpu", "cpu and cuda"),
    ("cotrain --views rgb,flow", "--views"),
    ("cotrain --init-from x", "--student"),
    ("cotrain --cycles 1 --set epoch=3", "did you mean epochs"),
    ("cotrain --cycles 1 --student x", "--student"),
    ("cotrain --method cmc --views rgb,flw", "did you mean flow"),
    ("cotrain --method cmc --views rgb", "2 streams"),
    ("cotrain --method cmc --init-from newest --set epoch=3", "did you mean epochs"),
    ("cotrain --method cmc --student x", "--init-from"),
    ("import nowhere --method coclrr", "did you mean coclr"),
    ("import nowhere --method coclr --view rbg", "did you mean rgb"),
    ("import nowhere --method coclr --backbone s3dd", "did you mean s3d"),
    ("import nowhere --method coclr --name ../x", "letters"),
    ("probe --stream flw", "did you mean flow"),
    ("probe --set epoch=3", "did you mean epochs"),
    ("probe --set epochs=many", "epochs takes a whole number"),
    ("probe --set batch=1", "batch must be at least 2"),
    ("probe --device tpu", "cpu and cuda"),
    ("probe --name ../x", "letters"),
    ("probe --recipe papr", "did you mean paper"),
    ("probe --stream rgb,flw", "did you mean flow"),
    ("probe -c a -c b --stream rgb", "2 checkpoints and 1 stream"),
    ("finetune --stream flw", "did you mean flow"),
    ("finetune --set epoch=3", "did you mean epochs"),
    ("finetune --set classes=3", "leave --set classes away"),
    ("finetune --crops eleven", "ten"),
    ("finetune --backbone s3dd", "did you mean s3d"),
    ("finetune --scratch -c x", "--scratch"),
    ("finetune --device tpu", "cpu and cuda"),
    ("finetune --name ../x", "letters"),
    ("extract-view nowhere --view pos", "did you mean pose"),
    ("extract-view nowhere --view pose --codec webm", "webp"),
    ("extract-view nowhere --view pose --stride 0", "--stride 0"),
    ("extract-view nowhere --view pose --set scor=1", "did you mean"),
    ("extract-view nowhere --view pose --device tpu", "cpu and cuda"),
    ("extract-view nowhere --view pose --name ../x", "letters"),
    ("extract-flow nowhere --shard 3/2", "no part 3/2"),
    ("retrieve", "--evaluate"),
    ("retrieve nowhere.mp4 --evaluate", "either"),
    ("retrieve nowhere.mp4 --weights pose", "VIEW=FILE"),
    ("retrieve nowhere.mp4 --split split1", "--evaluate"),
    ("retrieve nowhere.mp4 --stream flw", "did you mean flow"),
    ("retrieve nowhere.mp4 --device tpu", "cpu and cuda"),
    ("retrieve nowhere.mp4 --sheet x.txt", ".png"),
    ("retrieve --evaluate --stream rgb,flw", "did you mean flow"),
    ("retrieve --evaluate --name ../x", "letters"),
    ("baselines --backbone tyni", "did you mean tiny"),
    ("baselines --device tpu", "cpu and cuda"),
    ("export --format onx", "did you mean onnx"),
    ("export --stream flw", "did you mean flow"),
    ("demo --set epoch=1", "did you mean epochs"),
    ("demo --device tpu", "cpu and cuda"),
]


@pytest.mark.parametrize(("line", "hint"), WRONG_OPTIONS, ids=lambda value: value)
def test_a_wrong_option_exits_with_2_before_anything_is_looked_up(tmp_path, line, hint):
    said = refused(*line.split(), workspace=tmp_path / "empty", code=2)
    assert hint in said
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["pretrain", "--split", "split9"], "split9"),
        (["pretrain", "--pack", "mian"], "did you mean main"),
        (["pretrain", "--batch-size", "500"], "--batch-size"),
        (["pretrain", "--resume", "--name", "fresh"], "no unfinished run"),
        (["cotrain", "--student", "rgb-infonse"], "did you mean rgb-infonce"),
        (["probe", "--checkpoint", "flow-infonce", "--stream", "rgb"], "no rgb encoder"),
        (["retrieve", "no-such-file.mp4"], "no-such-file.mp4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_things_that_are_not_there_exit_with_1(finished, arguments, hint):
    small = SMALL if arguments[0] in ("pretrain", "cotrain") else []
    said = refused(*[arguments[0], *small, *arguments[1:]], workspace=finished["workspace"])
    assert hint in said
    assert Workspace(finished["workspace"]).unfinished() == []


def test_an_artifact_of_an_unknown_version_is_refused_by_name(copied):
    path = copied["workspace"] / "pack" / "main" / "v001" / "artifact.json"
    text = json.loads(path.read_text()) | {"format_version": 99}
    body = {key: value for key, value in text.items() if key != "checksum"}
    path.write_text(json.dumps(body | {"checksum": canonical_digest(body)}))
    said = refused("pretrain", *SMALL, workspace=copied["workspace"])
    assert "version 99" in said and "pack/main/v001" in said


def test_an_artifact_edited_by_hand_is_refused(copied):
    path = copied["workspace"] / "pack" / "main" / "v001" / "artifact.json"
    path.write_text(path.read_text().replace('"rgb"', '"rbg"', 1))
    assert "damaged" in refused("pretrain", *SMALL, workspace=copied["workspace"])


def flip_a_byte_of_a_frame(workspace) -> str:
    """Damages one frame of the pack; gives the shard's name."""
    import h5py

    (shard,) = (workspace / "pack" / "main" / "v001").glob("*.h5")
    with h5py.File(shard) as file:
        blobs = file["views/rgb/blobs"]
        place = blobs.id.get_offset() + blobs.shape[0] // 2
    with shard.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))
    return shard.name


def test_a_flipped_byte_is_found_by_verify_and_refused_by_training(copied):
    name = flip_a_byte_of_a_frame(copied["workspace"])
    found = vidssl("verify", workspace=copied["workspace"], code=1)
    assert name in found.out + found.err and "rgb" in found.out + found.err
    arguments = ["pretrain", "--name", "after", *SMALL, "--set", "frames=12", "--set", "stride=1"]
    said = refused(*arguments, workspace=copied["workspace"])
    assert name in said and "vidssl verify" in said
    assert Workspace(copied["workspace"]).artifacts("checkpoint", "after") == []


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(copied, monkeypatch):
    workspace, arguments = copied["workspace"], ["pretrain", "--name", "late", *SMALL]

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vidssl.base.files.os.fsync", full)
        assert "disk is full" in refused(*arguments, workspace=workspace)
    vidssl(*arguments, workspace=workspace)


def test_a_damaged_checkpoint_is_refused_by_name(copied):
    path = copied["workspace"] / "checkpoint/rgb-coclr/v001/encoder.rgb.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 0xFF
    path.write_bytes(data)
    said = refused("probe", workspace=copied["workspace"])
    assert "encoder.rgb.safetensors" in said and "damaged" in said


def test_a_workspace_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    assert "is a file" in refused("status", workspace=tmp_path / "file")
    assert "no workspace" in refused("verify", workspace=tmp_path / "typo")


def test_a_workspace_that_cannot_be_written_is_one_sentence(finished):
    said = refused("pack", finished["videos"], workspace="/proc/nowhere")
    assert "/proc/nowhere" in said


def test_errors_as_json(tmp_path):
    result = vidssl("pretrain", "--json", workspace=tmp_path / "w", code=1)
    assert result.json["exit_code"] == 1 and "vidssl pack" in result.json["error"]


@pytest.mark.parametrize(
    "line",
    [
        "pretrain --epochs many",
        "pretrain --epochs 0",
        "extract-flow",
        "pretrain --epoch 3",
        "pretrain --seed -1",
    ],
)
def test_words_that_cannot_be_parsed_are_told_as_json_as_well(tmp_path, line):
    result = vidssl(*line.split(), "--json", workspace=tmp_path / "w", code=2)
    assert result.json["exit_code"] == 2 and result.json["error"]
    assert "Usage" in result.err


@pytest.mark.parametrize(
    "words", [["extract-flow", ""], ["retrieve", "a.mp4", ""], ["retrieve", "a.mp4", "--sheet", ""]]
)
def test_an_empty_path_is_not_the_current_folder(tmp_path, words):
    assert "a path is empty" in refused(*words, workspace=tmp_path / "w", code=2)
    raw = CliRunner().invoke(app, ["status", "-w", ""])
    assert raw.exit_code == 2 and "a path is empty" in raw.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_of_few_letters_is_told_all_the_same(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "vidssl", "--help"],
        capture_output=True, text=True, encoding=encoding,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert r"extract-flow \u2192 pack" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["pretrain", "--json"]])
def test_a_full_disk_behind_the_output_is_one_sentence(tmp_path, arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vidssl", *arguments, "-w", tmp_path / "w"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("vidssl: ") and done.stderr.count("\n") == 1, done.stderr
