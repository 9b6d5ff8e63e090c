"""The page on views of a user's own is true: its file is loaded, and its commands are run."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_workspace import vidssl
from paths import ROOT
from video_files import moving_square, write_video

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.dataset.decoding import decode
from vidssl.shards import ShardReader
from vidssl.views import get_view
from vidssl.workspace.workspace import Workspace

PAGE = ROOT / "docs" / "extending.md"
SMALL = [
    "--recipe",
    "cpu",
    "--epochs",
    "1",
    "--batch-size",
    "2",
    "--set",
    "size=32",
    "--set",
    "frames=2",
]
SMALLER = {"pretrain": ["--set", "queue=2"], "cotrain": ["--set", "blocks=3", "--set", "predict=1"]}


@pytest.fixture(scope="module", autouse=True)
def the_pages_file(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    path = tmp_path_factory.mktemp("own") / "difference.py"
    path.write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDSSL_VIEWS", str(path))
        yield path


def commands() -> list[list[str]]:
    """Returns the words of the page's commands, without `vidssl`."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    first, *lines = block.splitlines()
    assert first == "export VIDSSL_VIEWS=difference.py"
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        clip = moving_square(7, 64, 48, ((3, 0), (0, 3))[number % 2], seed=number)
        write_video(folder / "ab"[number % 2] / f"{number}.mp4", clip)
    return folder


def test_the_pages_commands_run_with_the_pages_file(tmp_path, videos):
    for words in commands():
        words = [str(videos) if word == "VIDEOS/" else word for word in words]
        if words[0] in SMALLER:
            words += SMALL + SMALLER[words[0]]
        elif "VIDEOS" in " ".join(words) or str(videos) in words:
            words += ["--workers", "1"]
        vidssl(*words, workspace=tmp_path)
    made = {a.label for a in Workspace(tmp_path).artifacts()}
    assert {
        "view/difference/v001",
        "checkpoint/difference-infonce/v001",
        "probe/difference-infonce/v001",
        "checkpoint/rgb-difference-cocon/v001",
    } <= made
    query = videos / "a/0.mp4"
    words = ["retrieve", query, "--stream", "difference", "--keep-self", "--json"]
    found = vidssl(*words, "-c", "difference-infonce", workspace=tmp_path).json
    assert found["answers"][0]["neighbours"][0]["video"] == "a/0.mp4"


def test_the_stored_frames_are_what_the_page_says(tmp_path, videos):
    words = ["--view", "difference", "--set", "gain=1", "--codec", "png", "--workers", 1]
    vidssl("extract-view", videos, *words, workspace=tmp_path)
    (artifact,) = Workspace(tmp_path).artifacts("view")
    reader = ShardReader(artifact.path)
    frames = np.stack(list(decode(videos / "b/3.mp4"))).astype(float)
    grey = np.round(frames @ [0.299, 0.587, 0.114])
    number = next(v for v in range(4) if reader.video_id(v).startswith("b/3.mp4"))
    found = reader.frames("difference", number, range(6))[..., 0]
    np.testing.assert_allclose(found, np.clip(128 + np.diff(grey, axis=0), 1, 255), atol=2)


def test_the_pages_view_keeps_the_contract():
    view = get_view("difference")
    frames = np.random.default_rng(0).integers(1, 256, (3, 24, 32, 1), np.uint8)
    np.testing.assert_array_equal(view.flip(view.flip(frames)), frames)
    for codec in ("png", "webp"):
        np.testing.assert_array_equal(view.decode(view.encode(frames[0], codec), codec), frames[0])
    still = torch.full((1, 2, 3, 3), 128, dtype=torch.uint8)
    assert not view.to_float(still).any()
    assert view.activity(np.full_like(frames, 128)) == 0


def test_every_name_of_the_tables_is_there():
    view, deriver = get_view("difference"), get_view("difference").deriver()
    table = PAGE.read_text().partition("## The two halves")[2]
    names = {n for cell in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
             for n in re.findall(r"`(?:self\.)?(\w+)", cell)}  # fmt: skip
    assert {"derive", "describe", "lag", "flip", "activity"} <= names
    made = deriver(deriver.Config())
    for name in names:
        assert hasattr(view, name) or hasattr(made, name), name


def test_the_file_is_not_needed_for_what_does_not_use_it(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("VIDSSL_VIEWS", os.pathsep.join(["nowhere.py"]))
    vidssl("pack", videos, "--views", "rgb", "--workers", 1, workspace=tmp_path)
    said = vidssl("pretrain", "--stream", "depth", workspace=tmp_path, code=2).err
    assert "nowhere.py, named in VIDSSL_VIEWS, cannot be loaded" in " ".join(said.split())


def test_the_pages_example_with_weights_takes_the_file_that_is_named(tmp_path):
    (code,) = re.findall(r"```py\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    place: dict = {"__name__": __name__}
    exec(code, place)
    deriver = place["WeightedDeriver"]
    used, other = tmp_path / "used.txt", tmp_path / "other.txt"
    used.write_text("0.5")
    other.write_text("2")
    with pytest.raises(MissingInput, match="name the file of weights"):
        deriver.describe(deriver.Config(), "cpu")
    recorded = deriver.describe(deriver.Config(str(used)), "cpu")
    assert str(tmp_path) not in str(recorded)
    moved = used.rename(tmp_path / "moved.txt")
    config = deriver.recall(recorded, str(moved))
    (frame,) = deriver(config).derive([np.full((2, 2, 3), 100, np.uint8)], 1, None)
    assert (frame == 50).all()
    with pytest.raises(VidsslError, match=r"other\.txt holds other weights than those"):
        deriver.recall(recorded, str(other))
    with pytest.raises(MissingInput, match="name their file with --weights"):
        deriver.recall(recorded)
    with pytest.raises(MissingInput, match="there is no file of weights nowhere"):
        deriver.recall(recorded, "nowhere")


def test_weights_for_a_view_that_has_none_are_refused_and_not_ignored(tmp_path):
    deriver = get_view("difference").deriver()
    recorded = deriver.describe(deriver.Config(), "cpu")
    assert deriver.recall(recorded | {"since": "a later version"}) == deriver.Config()
    with pytest.raises(UsageError, match="has no use"):
        deriver.recall(recorded, str(tmp_path / "file"))
