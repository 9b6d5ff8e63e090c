"""extract-view: any view, network or not, as one artifact, whatever happens in between."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import SUPPORT
from small_networks import random_weights
from video_files import moving_square, write_video

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.dataset.decoding import decode
from vidssl.dataset.video import find_videos
from vidssl.extraction import pool
from vidssl.extraction.process_pool import process_videos
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow, extract_view, pack
from vidssl.stages.extract_view import ExtractView
from vidssl.views import all_views, get_view
from vidssl.views.plugins import plugin_views
from vidssl.workspace.workspace import Workspace

OWN = SUPPORT / "own_views.py"


@pytest.fixture(autouse=True)
def own_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSSL_VIEWS", str(OWN))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        clip = moving_square(6 + number, 64, 48, step=(number + 1, 1), seed=number)
        write_video(folder / f"c{number % 2}" / f"v{number}.mp4", clip)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def config(videos: Path) -> ExtractView:
    return ExtractView(videos, "brighter", workers=1)


class Lines:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *arguments, **options):
        return pack.SILENT.task(*arguments, **options)


def expected(path: Path, gain: float = 1.0) -> np.ndarray:
    frames = np.stack(list(decode(path))).astype(np.float32).mean(3)
    return (128 + gain * np.diff(frames, axis=0)).clip(0, 255).astype(np.uint8)[..., None]


def test_every_frame_of_every_video(workspace: Workspace, config: ExtractView):
    result = extract_view.run(workspace, config)
    artifact = result.artifact
    assert artifact.label == "view/brighter/v001"
    reader = ShardReader(artifact.path)
    assert reader.views["brighter"] == {
        "codec": "png",
        "stored_size": None,
        "stride": 1,
        "interpolation": "linear",
        "derivation": {"gain": 1.0, "fail": ""},
    }
    for source in find_videos(config.videos):
        number = reader.find(source.id)
        wanted = expected(source.path)
        found = reader.frames("brighter", number, range(len(wanted)))
        np.testing.assert_array_equal(found, wanted)
        record = reader.record(number)
        assert (record.frames, record.width, record.height) == (len(wanted) + 1, 64, 48)
        assert record.fps == 25
    assert list(reader.verify()) == []
    again = extract_view.run(workspace, replace(config, workers=2, shard_bytes=1000))
    assert again.reused and again.artifact == artifact


@pytest.mark.parametrize("stride", [2, 3])
def test_at_a_stride_the_frames_between_are_interpolated(workspace, config, stride):
    result = extract_view.run(workspace, replace(config, stride=stride))
    reader = ShardReader(result.artifact.path)
    for source in find_videos(config.videos):
        number = reader.find(source.id)
        wanted = expected(source.path)
        assert reader.frame_count("brighter")[number] == len(wanted)
        found = reader.frames("brighter", number, range(len(wanted))).astype(int)
        np.testing.assert_array_equal(found[::stride], wanted[::stride])
        mean = (wanted[0] + (wanted[stride].astype(float) - wanted[0]) / stride).round()
        assert np.abs(found[1] - mean).max() <= 0.5


@pytest.mark.parametrize(
    "change",
    [{"stride": 2}, {"stored": 24}, {"codec": "webp"}, {"settings": (("gain", "2"),)}],
)
def test_every_option_that_changes_the_frames_makes_another_run(workspace, config, change):
    dry = replace(config, dry_run=True)
    first = extract_view.run(workspace, dry).plan["views"]
    assert extract_view.run(workspace, replace(dry, **change)).plan["views"] != first


def test_settings_and_sizes_reach_the_frames(workspace, config):
    settings = (("gain", "3.5"),)
    result = extract_view.run(workspace, replace(config, settings=settings, stored=24))
    reader = ShardReader(result.artifact.path)
    (source,) = (s for s in find_videos(config.videos) if s.name == "c0/v2.mp4")
    found = reader.frames("brighter", reader.find(source.id), [1])[0]
    assert found.shape == (24, 32, 1)
    wanted = expected(source.path, 3.5)[1, ..., 0]
    halved = wanted.reshape(24, 2, 32, 2).mean((1, 3))
    assert np.abs(found[..., 0] - halved).max() <= 1


def test_a_grown_folder_is_not_derived_again(tmp_path, workspace, config, monkeypatch):
    extract_view.run(workspace, config)
    grown = Path(shutil.copytree(config.videos, tmp_path / "grown"))
    write_video(grown / "c0/new.mp4", moving_square(5, seed=77))
    worked: list[str] = []

    def spy(sources, function, workers, bounded):
        worked.extend(source.name for source in sources)
        return process_videos(sources, function, workers, bounded)

    monkeypatch.setattr(pool, "process_videos", spy)
    result = extract_view.run(workspace, replace(config, videos=grown))
    assert worked == ["c0/new.mp4"]
    anew = extract_view.run(Workspace(tmp_path / "anew"), replace(config, videos=grown))
    assert result.artifact.digest == anew.artifact.digest


def test_bad_videos_are_quarantined_with_their_reason(tmp_path, workspace):
    folder = tmp_path / "mixed"
    write_video(folder / "good.mp4", moving_square(5))
    write_video(folder / "single.mp4", moving_square(1))
    (folder / "empty.mp4").write_bytes(b"")
    result = extract_view.run(workspace, ExtractView(folder, "brighter", workers=1))
    assert dict(result.quarantined) == {
        "single.mp4": "it has 1 frame, too few for brighter",
        "empty.mp4": "the file is empty",
    }


def test_a_deriver_that_miscounts_is_found_out(workspace, config):
    with pytest.raises(VidsslError, match="brighter gave 2 frames for 6 of video at a stride of 1"):
        extract_view.run(workspace, replace(config, settings=(("fail", "early"),)))
    assert workspace.artifacts() == []


def test_a_deriver_that_cannot_be_made_costs_no_worker(workspace, config):
    with pytest.raises(RuntimeError, match="the network is gone"):
        extract_view.run(workspace, replace(config, settings=(("fail", "load"),)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"view": "brigter"}, r"no view named 'brigter' \(did you mean brighter\?\)"),
        ({"view": "flow"}, "extract-view does not make flow; .*: vidssl extract-flow VIDEOS"),
        ({"view": "rgb"}, "extract-view does not make rgb; .*: vidssl pack VIDEOS"),
        ({"codec": "gif"}, "no codec named 'gif'"),
        ({"stride": 0}, "--stride 0 makes no sense"),
        ({"stored": 7}, "--stored-size 7 is too small"),
        ({"settings": (("gian", "1"),)}, r"brighter has no setting gian \(did you mean gain\?\)"),
        ({"settings": (("gain", "much"),)}, "gain takes a number, not 'much'"),
        ({"view": "mask", "settings": (("model", "unet"),)}, "there is no model unet"),
        ({"device": "tpu"}, "there is no device tpu"),
    ],
)
def test_bad_options_cost_one_sentence(workspace, config, change, sentence):
    with pytest.raises(UsageError, match=sentence):
        extract_view.run(workspace, replace(config, **change))
    assert not workspace.root.exists()


def test_without_weights_the_sentence_says_how_to_get_them(
    workspace, config, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(MissingInput, match=r"download https://.*keypointrcnn.*--weights"):
        extract_view.run(workspace, replace(config, view="pose"))
    assert not workspace.root.exists()


def test_a_dry_run_leaves_nothing(workspace, config):
    plan = extract_view.run(workspace, replace(config, dry_run=True)).plan
    assert plan["videos"] == 3
    assert not workspace.root.exists()


def test_a_networks_view_from_workers(tmp_path, workspace, config):
    model = "lraspp_mobilenet_v3_large"
    weights = random_weights(tmp_path, model, num_classes=21)
    settings = (("model", model), ("weights", str(weights)), ("detector_size", 48))
    options = replace(config, view="mask", settings=settings, stored=24, workers=2)
    result = extract_view.run(workspace, options)
    assert result.quarantined == []
    reader = ShardReader(result.artifact.path)
    assert reader.views["mask"]["stride"] == 2 and reader.views["mask"]["codec"] == "webp"
    assert reader.views["mask"]["derivation"]["weights"].startswith("sha256:")
    assert str(tmp_path) not in str(result.artifact.recipe)
    assert reader.frames("mask", 0, range(6)).shape == (6, 24, 32, 1)
    moved = weights.rename(tmp_path / "moved.pth")
    settings = (("model", model), ("weights", str(moved)), ("detector_size", 48))
    assert extract_view.run(workspace, replace(options, settings=settings)).reused


# ── what pack makes of it


def test_pack_takes_every_view_there_is(workspace, config):
    extract_view.run(workspace, replace(config, stride=2))
    extract_flow.run(workspace, extract_flow.ExtractFlow(config.videos, workers=1, stored=24))
    result = pack.run(workspace, pack.Pack(config.videos, workers=1))
    reader = ShardReader(result.artifact.path)
    assert set(reader.views) == {"rgb", "flow", "brighter"}
    assert set(result.artifact.parents) == {"flow", "brighter"}
    derived = ShardReader(workspace.artifacts("view")[0].path)
    assert reader.views["brighter"] == derived.views["brighter"]
    for video in range(len(reader)):
        frames = range(int(reader.frame_count("rgb")[video]) - 1)
        there = derived.find(reader.video_id(video))
        assert reader.read("brighter", video, frames) == derived.read("brighter", there, frames)
        found = reader.frames("brighter", video, frames)
        np.testing.assert_array_equal(found, derived.frames("brighter", there, frames))
    only = pack.run(workspace, pack.Pack(config.videos, views=("rgb", "brighter"), workers=1))
    assert set(only.artifact.parents) == {"brighter"}


def test_pack_takes_the_artifact_that_was_named(workspace, config):
    first = extract_view.run(workspace, config).artifact
    extract_view.run(workspace, replace(config, stride=2))
    newest = pack.run(workspace, pack.Pack(config.videos, workers=1)).artifact
    assert ShardReader(newest.path).views["brighter"]["stride"] == 2
    options = pack.Pack(config.videos, derived=(first.label,), workers=1)
    named = pack.run(workspace, options).artifact
    assert named.parents["brighter"] == first.digest
    with pytest.raises(UsageError, match="view/brighter/v001 holds no view that is packed"):
        pack.run(workspace, replace(options, views=("rgb",)))


def test_pack_names_the_command_of_a_view_that_is_missing(workspace, config):
    with pytest.raises(MissingInput, match=r"make it with: vidssl extract-view .* --view pose"):
        pack.run(workspace, pack.Pack(config.videos, views=("rgb", "pose")))


def test_a_view_that_this_vidssl_does_not_know_is_left_out_of_a_pack(
    workspace, config, monkeypatch
):
    extract_view.run(workspace, config)
    monkeypatch.delenv("VIDSSL_VIEWS")
    said = Lines()
    result = pack.run(workspace, pack.Pack(config.videos, workers=1), said)
    assert set(ShardReader(result.artifact.path).views) == {"rgb"}
    assert said.lines[0] == (
        "view/brighter/v001 is left out: there is no view named brighter here; a view of your own "
        "is named in VIDSSL_VIEWS"
    )


# ── views of a user's own


def test_a_file_adds_a_view():
    assert list(all_views()) == ["rgb", "flow", "pose", "mask", "brighter"]
    assert get_view("brighter").channels == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"own\.py, named in VIDSSL_VIEWS, cannot be loaded \(FileNotFoundError"),
        ("VIEW = 3", "holds no view: it must say VIEW = MyView"),
        ("", "holds no view"),
        ("import nothing_of_that_name", r"cannot be loaded \(ModuleNotFoundError"),
        ("def f(:", r"cannot be loaded \(SyntaxError"),
    ],
)
def test_a_file_that_is_no_view_is_one_sentence(tmp_path, monkeypatch, text, sentence):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("VIDSSL_VIEWS", str(path))
    with pytest.raises(UsageError, match=sentence):
        get_view("own")
    assert get_view("rgb").name == "rgb", "what needs no file does not ask for it"


def test_a_module_may_be_named_and_names_must_differ(tmp_path, monkeypatch):
    (tmp_path / "an_installed_module.py").write_text(OWN.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VIDSSL_VIEWS", "an_installed_module")
    assert list(plugin_views()) == ["brighter"]
    monkeypatch.setenv("VIDSSL_VIEWS", f"an_installed_module:{OWN}")
    with pytest.raises(UsageError, match="two entries of VIDSSL_VIEWS hold a view named brighter"):
        plugin_views()
    other = tmp_path / "taken.py"
    other.write_text(OWN.read_text().replace('= "brighter"', '= "mask"'))
    monkeypatch.setenv("VIDSSL_VIEWS", str(other))
    with pytest.raises(UsageError, match="called mask, as one of vidssl is"):
        get_view("own")
