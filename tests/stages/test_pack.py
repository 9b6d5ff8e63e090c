"""pack: frames and flow of the same moments, annotations beside them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from patience import PATIENCE
from video_files import moving_square, write_video

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.dataset.annotations import Annotations
from vidssl.dataset.decoding import decode
from vidssl.dataset.video import find_videos
from vidssl.extraction import decoded_video
from vidssl.extraction.derived_views import DerivedView
from vidssl.extraction.video_frames import pack_video
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow, pack
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace


class Lines:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *arguments, **options):
        return pack.SILENT.task(*arguments, **options)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        clip = moving_square(5 + number, 64, 48, step=(number, 1), seed=number)
        write_video(folder / f"class{number % 2}" / f"v{number}.mp4", clip)
    return folder


@pytest.fixture
def videos(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "videos"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def with_flow(workspace: Workspace, videos: Path) -> Workspace:
    extract_flow.run(workspace, ExtractFlow(videos, workers=1, stored=24))
    return workspace


def test_rgb_and_flow_of_the_same_moments(workspace: Workspace, videos: Path):
    flow = ShardReader(with_flow(workspace, videos).artifacts("flow")[0].path)
    result = pack.run(workspace, Pack(videos, size=32, workers=2))
    reader = ShardReader(result.artifact.path)
    assert set(reader.views) == {"rgb", "flow"}
    assert reader.views["flow"] == flow.views["flow"]
    assert list(reader.verify()) == []
    assert result.artifact.parents["flow"] == workspace.artifacts("flow")[0].digest
    for source in find_videos(videos):
        here, there = reader.find(source.id), flow.find(source.id)
        frames = list(decode(source.path))
        assert reader.frame_count("rgb")[here] == len(frames) == reader.videos.frames[here]
        count = int(reader.frame_count("flow")[here])
        assert count == len(frames) - 1
        every = range(count)
        assert reader.read("flow", here, every) == flow.read("flow", there, every)
        stored = reader.frames("rgb", here, [2])[0].astype(int)
        expected = cv2.resize(frames[2], (43, 32), interpolation=cv2.INTER_AREA)
        assert stored.shape == (32, 43, 3)
        assert np.abs(stored - expected).mean() < 4


def test_without_flow_it_packs_rgb_and_names_the_command(workspace: Workspace, videos: Path):
    said = Lines()
    result = pack.run(workspace, Pack(videos, workers=1), said)
    assert list(ShardReader(result.artifact.path).views) == ["rgb"]
    assert said.lines == [
        "no flow for these videos yet: packing rgb only "
        f"(to have it: vidssl extract-flow {videos})",
        result.labelling,
    ]
    assert result.labelling == (
        "labels of 4 of 4 videos, 2 classes, from folders; each video is a group of its own, but "
        "for copies; no split: an 80/20 one by group is drawn where one is needed"
    )
    with pytest.raises(MissingInput, match="make it with: vidssl extract-flow"):
        pack.run(workspace, Pack(videos, views=("rgb", "flow")))


def test_flow_that_is_made_later_makes_another_pack(workspace: Workspace, videos: Path):
    first = pack.run(workspace, Pack(videos, workers=1))
    with_flow(workspace, videos)
    said = Lines()
    second = pack.run(workspace, Pack(videos, workers=1), said)
    assert second.artifact.version == first.artifact.version + 1
    assert said.lines == ["flow: flow/main/v001", second.labelling]
    third = pack.run(workspace, Pack(videos, views=("rgb",), workers=1))
    assert third.reused
    assert third.artifact == first.artifact


def test_a_new_video_is_quarantined_until_its_flow_is_made(workspace: Workspace, videos: Path):
    with_flow(workspace, videos)
    write_video(videos / "class0/new.mp4", moving_square(5, seed=9))
    (videos / "class0/empty.mp4").write_bytes(b"")
    result = pack.run(workspace, Pack(videos, workers=1))
    reasons = dict(result.quarantined)
    assert set(reasons) == {"class0/new.mp4", "class0/empty.mp4"}
    assert reasons["class0/new.mp4"].startswith("no flow for it: run vidssl extract-flow")
    extract_flow.run(workspace, ExtractFlow(videos, workers=1, stored=24))
    again = pack.run(workspace, Pack(videos, workers=1))
    assert dict(again.quarantined) == {"class0/empty.mp4": "no flow for it: the file is empty"}
    assert len(ShardReader(again.artifact.path)) == 5
    assert again.annotations.summary["videos"] == 5


def test_flow_of_another_file_of_that_name_is_not_taken(workspace: Workspace, videos: Path):
    with_flow(workspace, videos)
    write_video(videos / "class0/v0.mp4", moving_square(9, seed=5))
    result = pack.run(workspace, Pack(videos, workers=1))
    assert [name for name, _ in result.quarantined] == ["class0/v0.mp4"]


def test_flow_that_does_not_fit_the_frames(
    workspace: Workspace, videos: Path, monkeypatch: pytest.MonkeyPatch
):
    flow = {"flow": DerivedView.open(with_flow(workspace, videos).artifacts("flow")[0])}
    source = find_videos(videos)[0]
    params = {"codec": "jpeg90", "stored_size": 32}
    assert pack_video(source, params, flow).record is not None
    monkeypatch.setattr(decoded_video, "decode", lambda *how: iter(list(decode(*how))[:-1]))
    with pytest.raises(decoded_video.UnusableVideo, match="it has 4 frames, and its flow 4"):
        pack_video(source, params, flow)


# ── annotations


def annotations_of(result: pack.PackResult) -> Annotations:
    reader = ShardReader(result.artifact.path)
    ids = [reader.video_id(i) for i in range(len(reader))]
    return Annotations.load(result.annotations.path, ids)


def test_folders_are_labels(workspace: Workspace, videos: Path):
    result = pack.run(workspace, Pack(videos, workers=1))
    found = annotations_of(result)
    assert found.classes == ["class0", "class1"]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert result.annotations.parents == {"pack": result.artifact.digest}
    assert result.annotations.summary["classes"] == 2


def test_other_labels_make_new_annotations_and_no_new_pack(
    workspace: Workspace, videos: Path, tmp_path: Path
):
    first = pack.run(workspace, Pack(videos, workers=1))
    table = tmp_path / "labels.csv"
    table.write_text("path,label,split1\nclass0/v0.mp4,a,train\nclass1/v1.mp4,b,test\n")
    second = pack.run(workspace, Pack(videos, labels=str(table)))
    assert second.reused
    assert second.artifact == first.artifact
    assert annotations_of(second).labels.tolist() == [0, -1, 1, -1]
    assert annotations_of(second).select("split1", 0).train.tolist() == [0]
    assert second.annotations.summary["splits"]["split1"] == {"train": 1, "": 2, "test": 1}
    same = pack.run(workspace, Pack(videos, labels=str(table)))
    assert same.annotations == second.annotations
    back = pack.run(workspace, Pack(videos))
    assert back.annotations.sequence > second.annotations.sequence, "the newest is what counts"
    assert back.annotations.digest == first.annotations.digest
    unlabelled = pack.run(workspace, Pack(videos, labels="none", group_pattern=r"v"))
    assert annotations_of(unlabelled).labels.tolist() == [-1] * 4
    assert len(annotations_of(unlabelled).group_names) == 1
    assert len(workspace.artifacts("pack")) == 1


def test_a_flat_folder_is_unlabelled(workspace: Workspace, videos: Path):
    for path in videos.glob("class*/*.mp4"):
        path.rename(videos / path.name)
    found = annotations_of(pack.run(workspace, Pack(videos, workers=1)))
    assert found.labels.tolist() == [-1] * 4
    assert len(found.group_names) == 4


def test_bad_labels_cost_no_packing(workspace: Workspace, videos: Path, tmp_path: Path):
    (tmp_path / "labels.csv").write_text("path,label\nnothing.mp4,a\n")
    with pytest.raises(VidsslError, match="not one of the 1 paths"):
        pack.run(workspace, Pack(videos, labels=str(tmp_path / "labels.csv")))
    assert not workspace.root.exists()


@pytest.mark.parametrize(
    ("change", "sentence", "kind"),
    [
        ({"quality": 0}, "no codec named 'jpeg0'", VidsslError),
        ({"size": 2}, "--size 2 is too small", UsageError),
        ({"views": ("flow",)}, "at least the rgb view", UsageError),
        ({"views": ("rgb", "fow")}, r"no view named 'fow' \(did you mean flow\?\)", VidsslError),
        ({"derived": ("flow/other",)}, "there is no flow named flow/other", VidsslError),
        ({"derived": ("other",)}, "there is no view named other", VidsslError),
        ({"group_pattern": "("}, "no regular expression", VidsslError),
    ],
)
def test_bad_options_cost_one_sentence(
    workspace: Workspace, videos: Path, change: dict, sentence: str, kind: type
):
    with pytest.raises(kind, match=sentence):
        pack.run(workspace, replace(Pack(videos), **change))
    assert not workspace.root.exists()


def test_a_dry_run_leaves_nothing(workspace: Workspace, videos: Path):
    result = pack.run(workspace, Pack(videos, dry_run=True))
    assert result.plan["videos"] == 4
    assert result.plan["derived"] == {}
    assert not workspace.root.exists()


# ── stopped and begun again

# It takes its time after each video, so that whoever waits for a moment sees it.
RUN = """
import sys, time
from pathlib import Path
from vidssl.workspace.workspace import Workspace
from vidssl.shards import ShardWriter
from vidssl.stages import pack

def add_slowly(writer, record, blobs):
    add(writer, record, blobs)
    time.sleep(0.1)

add = ShardWriter.add
if __name__ == "__main__":
    ShardWriter.add = add_slowly
    pack.run(Workspace(sys.argv[1]), pack.Pack(Path(sys.argv[2]), workers=2))
"""


def test_killed_it_goes_on(tmp_path: Path):
    videos = tmp_path / "videos"
    for number in range(10):
        write_video(videos / f"v{number}.mp4", moving_square(40, 320, 240, seed=number))
    script = tmp_path / "run.py"
    script.write_text(RUN)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "w"), str(videos)])
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        journals = list((tmp_path / "w").glob("pack/main/.run-*/spool-0000.journal"))
        if journals and journals[0].read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    said = Lines()
    result = pack.run(Workspace(tmp_path / "w"), Pack(videos, workers=2), said)
    assert any(line.startswith("done before: ") and "of 10 videos" in line for line in said.lines)
    twin = pack.run(Workspace(tmp_path / "twin"), Pack(videos, workers=1))
    assert result.artifact.digest == twin.artifact.digest
    assert result.annotations.digest == twin.annotations.digest
