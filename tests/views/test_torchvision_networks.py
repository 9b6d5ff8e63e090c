"""Weights: from a file or torch's cache, never from the network; and what is recorded of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import random_network, random_weights

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.views.keypoint_rcnn import TRAINED_WITHOUT_EPS, KeypointConfig, KeypointDeriver
from vidssl.views.person_segmentation import MaskConfig, MaskDeriver
from vidssl.views.torchvision_networks import (
    BATCH_PIXELS,
    MOST_FRAMES,
    find_weights,
    imagenet_input,
    in_batches,
    load_network,
)

MODEL = "lraspp_mobilenet_v3_large"
OPTIONS = {"num_classes": 21, "weights_backbone": None}


@pytest.fixture(autouse=True)
def no_network_and_a_cache_of_its_own(tmp_path, monkeypatch):
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def weights(tmp_path) -> Path:
    return random_weights(tmp_path, MODEL, num_classes=21)


def test_without_weights_the_sentence_says_how_to_get_them(tmp_path):
    with pytest.raises(MissingInput) as caught:
        find_weights("keypointrcnn_resnet50_fpn", "")
    said = str(caught.value)
    url = "https://download.pytorch.org/models/keypointrcnn_resnet50_fpn_coco-fc266e95.pth"
    assert f"download {url} to {tmp_path / 'hub/checkpoints'}, or name a file" in said
    assert "--weights" in said and "\n" not in said
    with pytest.raises(MissingInput, match=r"there is no file of weights nowhere\.pth"):
        find_weights(MODEL, "nowhere.pth")


def test_weights_in_torchs_cache_are_found(tmp_path, weights):
    place = tmp_path / "hub/checkpoints"
    place.mkdir(parents=True)
    cached = place / "lraspp_mobilenet_v3_large-d234d4ea.pth"
    weights.rename(cached)
    found = find_weights(MODEL, "")
    assert found.path == cached
    assert found.sha256 == hashlib.sha256(cached.read_bytes()).hexdigest()


def test_what_is_recorded_is_the_digest_and_not_the_place(tmp_path, weights):
    elsewhere = tmp_path / "elsewhere.pth"
    elsewhere.write_bytes(weights.read_bytes())
    here, there = (
        MaskDeriver.describe(MaskConfig(model=MODEL, weights=str(path)), "cpu")
        for path in (weights, elsewhere)
    )
    assert here == there
    assert str(tmp_path) not in str(here)
    assert here["weights"] == f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    assert here["precision"] == "float32" and here["detector_size"] == 520
    assert MaskDeriver.describe(MaskConfig(model=MODEL, weights=str(weights)), "cuda") == (
        here | {"precision": "float16"}
    )


def test_what_was_recorded_gives_the_settings_back(tmp_path, weights):
    config = MaskConfig(model=MODEL, weights=str(weights), things=True, detector_size=64)
    recorded = MaskDeriver.describe(config, "cuda")
    assert MaskDeriver.recall(recorded, str(weights)) == config
    other = tmp_path / "other.pth"
    other.write_bytes(weights.read_bytes() + b"!")
    with pytest.raises(VidsslError, match=r"other weights of lraspp.*\(sha256:"):
        MaskDeriver.recall(recorded, str(other))
    with pytest.raises(MissingInput, match="or name a file of them with --weights"):
        MaskDeriver.recall(recorded)


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", {"model": {"some": torch.zeros(1)}}, [1, 2], {"state": {}}],
    ids=["empty", "text", "another network", "a list", "nothing"],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(VidsslError, match=r"weights.pth holds no weights of lraspp") as caught:
        load_network(
            MODEL, find_weights(MODEL, str(path)), "cpu", torch.contiguous_format, **OPTIONS
        )
    assert "\n" not in str(caught.value)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_no_code_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": Evil()}, "weights.pth")
    with pytest.raises(VidsslError, match="holds no weights"):
        load_network(
            MODEL, find_weights(MODEL, "weights.pth"), "cpu", torch.contiguous_format, **OPTIONS
        )
    assert not Path("touched").exists()


def test_weights_in_pytorchs_first_format_are_read(tmp_path, weights):
    """Torchvision's published weights of R-CNNs, of 2019, are in it."""
    state, path = torch.load(weights, weights_only=True), tmp_path / "first.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    found = find_weights(MODEL, str(path))
    network = load_network(MODEL, found, "cpu", torch.contiguous_format, **OPTIONS)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name])


def test_a_text_is_told_as_such(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n")
    found = find_weights(MODEL, str(tmp_path / "labels.csv"))
    with pytest.raises(VidsslError, match="it is neither a zip file nor a pickle"):
        load_network(MODEL, found, "cpu", torch.contiguous_format, **OPTIONS)


def test_weights_as_torchvisions_own_training_saves_them(tmp_path, weights):
    state = torch.load(weights, weights_only=True)
    torch.save({"model": state, "epoch": 3}, tmp_path / "training.pth")
    found = find_weights(MODEL, str(tmp_path / "training.pth"))
    network = load_network(MODEL, found, "cpu", torch.contiguous_format, **OPTIONS)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name])
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_the_published_keypoint_weights_are_used_without_eps(tmp_path, monkeypatch):
    """As torchvision does, which knows them by their name."""
    from vidssl.views import keypoint_rcnn
    from vidssl.views.torchvision_networks import Weights

    path = tmp_path / "coco.pth"
    network = random_network("keypointrcnn_resnet50_fpn")
    torch.save(network.state_dict(), path)
    for digest, eps in ((TRAINED_WITHOUT_EPS + "0" * 56, 0.0), ("0" * 64, 1e-5)):
        monkeypatch.setattr(keypoint_rcnn, "find_weights", lambda *_, d=digest: Weights(path, d))
        made = KeypointDeriver(KeypointConfig()).network
        norms = [part for part in made.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        assert len(norms) > 50 and {norm.eps for norm in norms} == {eps}


def test_frames_go_together_as_they_fit():
    frames = [np.full((192, 256, 3), n, np.uint8) for n in range(MOST_FRAMES + 3)]
    assert [len(b) for b in in_batches(frames, "cuda")] == [MOST_FRAMES, 3]
    assert [len(b) for b in in_batches(frames[:3], "cpu")] == [1, 1, 1]
    large = [np.zeros((800, 1066, 3), np.uint8)] * 5
    assert [len(b) for b in in_batches(large, "cuda")] == [BATCH_PIXELS // (800 * 1066), 1]
    assert [int(b[0, 0, 0, 0]) for b in in_batches(frames, "cpu")] == list(range(MOST_FRAMES + 3))
    huge = [np.zeros((4000, 4000, 1), np.uint8)] * 2
    assert [len(b) for b in in_batches(huge, "cuda")] == [1, 1]


def test_frames_are_shown_as_imagenets():
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    frames[..., 0] = 255
    x = imagenet_input(frames, "cpu")
    assert x.shape == (1, 3, 2, 2)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(x[0, :, 1, 1], expected)
