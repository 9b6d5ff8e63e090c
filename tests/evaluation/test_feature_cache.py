"""Cached features: keyed by digests, and nothing lost by a kill."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_workspace import make_checkpoint, make_pack, small_workspace
from watching import Watching

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.evaluation import feature_cache, feature_file, features
from vidssl.evaluation.feature_cache import EmbedOptions, load_features
from vidssl.evaluation.features import WindowProtocol
from vidssl.shards import ShardReader
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return small_workspace(tmp_path / "ws")


def test_features_of_all_videos_are_kept(workspace: Workspace) -> None:
    first = feature_cache.embed(workspace, EmbedOptions())
    assert first.artifact.summary == {"videos": 30, "windows": 30 * 5, "width": 128}
    assert feature_cache.embed(workspace, EmbedOptions()).reused
    other = feature_cache.embed(workspace, EmbedOptions(protocol=WindowProtocol(crop_share=1.0)))
    assert other.artifact.digest != first.artifact.digest
    with ShardReader(workspace.newest("pack").path) as reader:
        ids = tuple(reader.video_id(v) for v in range(len(reader)))
    assert load_features(first.artifact).ids == ids


def test_the_same_command_gives_the_same_bytes(workspace: Workspace) -> None:
    first = feature_cache.embed(workspace, EmbedOptions()).artifact
    again = feature_cache.embed(workspace, EmbedOptions(new=True)).artifact
    assert again.version == 2 and again.digest == first.digest
    assert again.payload == first.payload


def test_an_interrupted_run_goes_on(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_features(feature_cache.embed(workspace, EmbedOptions()).artifact)
    monkeypatch.setattr(feature_cache, "PART_VIDEOS", 8)
    stopped = Watching(stop_after=2 * 8 * 5)  # two parts of eight videos of five windows
    with pytest.raises(Interrupted, match="the same command goes on"):
        feature_cache.embed(workspace, EmbedOptions(new=True), stopped)
    assert len(workspace.unfinished()) == 1
    again = Watching()
    result = feature_cache.embed(workspace, EmbedOptions(new=True), again)
    assert again.titles == ["embed rgb"]  # one bar for all parts
    assert (again.total, again.behind, again.came) == (150, 80, 70)
    assert list(result.artifact.payload) == ["features.h5"]
    assert workspace.unfinished() == []
    found = load_features(result.artifact)
    assert found.ids == whole.ids and np.array_equal(found.offsets, whole.offsets)
    assert np.allclose(found.windows, whole.windows, atol=1e-6)


@pytest.mark.parametrize("kind", ["flip", "zero", "cut", "checksum", "other videos"])
def test_a_damaged_part_is_computed_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(feature_cache, "PART_VIDEOS", 8)
    whole = feature_cache.embed(workspace, EmbedOptions()).artifact
    with pytest.raises(Interrupted):
        feature_cache.embed(workspace, EmbedOptions(new=True), Watching(stop_after=2 * 8 * 5))
    first, second = sorted(workspace.root.glob("features/*/.run-*/part-*.h5"))
    data = bytearray(first.read_bytes())
    place = data.index(feature_file.load_part(first).windows[0].tobytes()) + 5
    if kind == "flip":
        data[place] ^= 8
    elif kind == "zero":
        data[place : place + 40] = bytes(40)
    elif kind == "cut":
        del data[place:]
    elif kind == "checksum":
        del data[-78:]
    else:
        data = bytearray(second.read_bytes())
    first.write_bytes(data)
    again = Watching()
    result = feature_cache.embed(workspace, EmbedOptions(new=True), again)
    assert result.artifact.digest == whole.digest
    assert again.said == [f"{first} is damaged: its 8 videos are embedded again"]


def test_features_that_are_no_numbers_are_not_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = features._embed_batch

    def broken(*arguments: Any) -> np.ndarray:
        rows = original(*arguments)
        rows[-1, 0] = np.nan
        return rows

    monkeypatch.setattr(features, "_embed_batch", broken)
    with pytest.raises(VidsslError, match=r"the rgb features of class0/clip009\.mp4.* no numbers"):
        feature_cache.embed(workspace, EmbedOptions())
    assert workspace.artifacts("features") == []


def test_who_wants_features_that_are_being_computed_waits_for_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, real = threading.Event(), threading.Event(), features.embed_videos

    def slow(*given: Any, **named: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return real(*given, **named)

    class Second(Watching):
        def say(self, text: str) -> None:
            super().say(text)
            go_on.set()  # only now the first one may end

    monkeypatch.setattr(features, "embed_videos", slow)
    second = Second()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(feature_cache.embed, workspace, EmbedOptions())
        assert begun.wait(60)
        found = feature_cache.embed(workspace, EmbedOptions(), second)
        assert not first.result().reused and found.reused
    assert second.said == ["another process computes features/rgb-infonce: waiting for them"]
    assert len(workspace.artifacts("features")) == 1 and workspace.unfinished() == []
    assert not list(workspace.root.glob("features/*/.run-*"))


def test_a_full_disk_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if ".h5" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "no space")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VidsslError, match="the disk is full"):
        feature_cache.embed(workspace, EmbedOptions())
    monkeypatch.undo()
    assert feature_cache.embed(workspace, EmbedOptions()).artifact is not None


def test_another_pack_and_another_stream(workspace: Workspace) -> None:
    make_pack(workspace, [0, 1], ("rgb", "flow"), name="other", seed=3)
    result = feature_cache.embed(workspace, EmbedOptions(pack="other"))
    assert result.artifact.summary["videos"] == 2
    make_checkpoint(workspace, workspace.resolve("pack", "other"), stream="flow")
    flow = feature_cache.embed(workspace, EmbedOptions(checkpoint="flow-infonce"))  # its own stream
    assert flow.artifact.recipe["stream"] == "flow"
    with pytest.raises(VidsslError, match="no flow view"):
        feature_cache.embed(workspace, EmbedOptions(checkpoint="flow-infonce", pack="main"))


def test_a_dry_run_does_nothing(workspace: Workspace) -> None:
    result = feature_cache.embed(workspace, EmbedOptions(dry_run=True))
    assert result.plan["makes"] == "features/rgb-infonce" and result.artifact is None
    assert workspace.artifacts("features") == []
