"""RAFT: torchvision's network, fed as it was trained, at any size and in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from cli_workspace import vidssl
from small_networks import random_network, random_weights
from video_files import moving_square, write_video

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.optical_flow.algorithms import (
    RAFT_PRESETS,
    derive_flow,
    derive_together,
    flow_method,
    get_flow_method,
)
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.raft import Raft, RaftFlow, pairs_at_once, with_weights
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return str(random_weights(tmp_path_factory.mktemp("w"), "raft_small"))


@pytest.fixture(scope="module")
def raft(weights) -> Raft:
    params = with_weights(RAFT_PRESETS["small"] | {"updates": 3}, weights)
    return Raft(params, weights)


def frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def test_it_is_torchvisions_network_as_torchvision_feeds_it(raft):
    before, after = frames(1, 128, 136), frames(1, 128, 136, 1)
    network = random_network("raft_small")
    prepare = torchvision.models.optical_flow.Raft_Small_Weights.DEFAULT.transforms()
    pair = prepare(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (before, after)))
    with torch.inference_mode():
        expected = network(*pair, num_flow_updates=3)[-1].permute(0, 2, 3, 1)
    found = raft.flow(before, after)
    assert found.dtype == np.float32 and found.shape == (1, 128, 136, 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(128, 131), (130, 129), (60, 200), (48, 64)])
def test_any_size_is_padded_about_its_middle(raft, height, width):
    before, after = frames(1, height, width), frames(1, height, width, 1)
    found = raft.flow(before, after)
    assert found.shape == (1, height, width, 2) and np.isfinite(found).all()
    sides = []
    for size in (height, width):
        whole = max(128, -(-size // 8) * 8)
        sides.append(((whole - size) // 2, whole - size - (whole - size) // 2))
    large = [np.pad(x, ((0, 0), *sides, (0, 0)), mode="edge") for x in (before, after)]
    whole = raft.flow(*large)[:, sides[0][0] :, sides[1][0] :][:, :height, :width]
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_a_pairs_flow_does_not_depend_on_its_neighbours(raft):
    before, after = frames(3, 128, 128), frames(3, 128, 128, 1)
    together = raft.flow(before, after)
    alone = raft.flow(before[1:2], after[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-3)


def test_so_many_pairs_at_once():
    assert pairs_at_once(240, 320, "cpu") == 1
    assert pairs_at_once(240, 320, "cuda") == 32
    assert pairs_at_once(720, 1280, "cuda") == 2
    assert pairs_at_once(2160, 3840, "cuda") == 1


def test_what_is_recorded(weights, tmp_path):
    params = with_weights(RAFT_PRESETS["small"], weights)
    assert params["model"] == "raft_small" and params["updates"] == 12
    assert params["weights"].startswith("sha256:") and weights not in str(params)
    other = tmp_path / "other.pth"
    torch.save(torch.load(weights, weights_only=True) | {"more": torch.zeros(1)}, other)
    with pytest.raises(VidsslError, match=r"other weights of raft_small.*with --weights"):
        Raft(params, str(other))


def test_without_weights_the_sentence_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingInput, match=r"download https://.*raft_large_C_T_SKHT_V2.*--weights"):
        with_weights(RAFT_PRESETS["large"])


def test_weights_of_the_other_size_are_one_sentence(weights):
    params = with_weights(RAFT_PRESETS["large"], weights)
    with pytest.raises(VidsslError, match="holds no weights of raft_large"):
        Raft(params, weights)


# ── as a method of extract-flow


def test_pair_by_pair_and_together_are_the_same(weights):
    params = with_weights(RAFT_PRESETS["small"] | {"updates": 2}, weights)
    method = flow_method("raft", params, weights)
    assert method.colour
    clip = frames(4, 60, 80)
    one = np.stack(list(derive_flow(clip, method.start(), 40, colour=True)))
    together = derive_together(clip, method.batched("cpu"), 40, colour=True)
    np.testing.assert_allclose(one, np.stack(list(together)), atol=1e-3)
    assert one.shape == (3, 40, 53, 2)


def test_sizes_may_be_mixed_and_every_pair_comes_back(raft):
    small, large = frames(3, 128, 128), frames(3, 128, 136, 2)
    pairs = [
        FramePair((name, n), clip[n], clip[n + 1])
        for n in range(2)
        for name, clip in (("small", small), ("large", large))
    ]
    found = dict(RaftFlow(raft).flows([pairs[0], None, *pairs[1:]]))
    assert set(found) == {pair.tag for pair in pairs}
    for pair in pairs:
        alone = raft.flow(pair.before[None], pair.after[None])[0]
        np.testing.assert_allclose(found[pair.tag], alone, atol=1e-3)


def test_extract_flow_by_raft(tmp_path, weights):
    for number in range(2):
        write_video(tmp_path / f"v/{number}.mp4", moving_square(4, 64, 48, seed=number))
    words = ["extract-flow", tmp_path / "v", "--method", "raft", "--preset", "small"]
    vidssl(*words, "--weights", weights, "--workers", 1, workspace=tmp_path / "w")
    (artifact,) = Workspace(tmp_path / "w").artifacts("flow")
    reader = ShardReader(artifact.path)
    recorded = reader.views["flow"]
    assert recorded["method"] == "raft" and recorded["method_params"]["model"] == "raft_small"
    assert recorded["method_params"]["weights"].startswith("sha256:")
    assert str(tmp_path) not in str(artifact.recipe)
    assert reader.flow(0, range(3)).shape == (3, 48, 64, 2)
    again = vidssl(*words, "--weights", weights, "--json", workspace=tmp_path / "w").json
    assert again["reused"]


def test_without_weights_extract_flow_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_video(tmp_path / "v/a.mp4", moving_square(3))
    said = vidssl("extract-flow", tmp_path / "v", "--method", "raft", workspace=tmp_path, code=1)
    assert "download https://download.pytorch.org/models/raft_large" in " ".join(said.err.split())
    with pytest.raises(UsageError, match="dis is no network: leave --weights away"):
        get_flow_method("dis", weights="raft.pth")
    config = extract_flow.ExtractFlow(tmp_path / "v", method="raft", preset="medium")
    with pytest.raises(UsageError, match=r"raft has no preset 'medium'.*: it has large, small"):
        extract_flow.run(Workspace(tmp_path / "w"), config)
