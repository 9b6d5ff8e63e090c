"""Masks: soft, over the box they belong to, the larger where people overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import noise_frames, random_network, random_weights
from torchvision.models.detection.roi_heads import paste_masks_in_image

from vidssl.base.errors import UsageError
from vidssl.views import get_view, person_segmentation
from vidssl.views.person_segmentation import MaskConfig, MaskDeriver, masks_of_pixels, paste
from vidssl.views.rcnn import Detections
from vidssl.views.torchvision_networks import imagenet_input


def smooth_masks(count: int, seed: int = 0) -> torch.Tensor:
    """Returns probabilities that fall off towards the edge: [count, 28, 28]."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 5, generator=chance)
    large = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    across = torch.linspace(-1, 1, 28).square()
    return large * (1 - across) * (1 - across[:, None])


# ── geometry ─────────────────────────────────────────────────────────────────────────────────


def test_a_mask_lies_where_torchvision_pastes_it():
    """Which rounds boxes to whole pixels, one wider; so whole boxes, and half a cell apart."""
    masks = smooth_masks(3)
    boxes = torch.tensor([[20.0, 30, 131, 171], [70, 5, 125, 60], [-20, 100, 35, 211]])
    ours = torch.cat(
        [paste(m[None], b[None], (192, 256)) for m, b in zip(masks, boxes, strict=True)]
    )
    theirs = paste_masks_in_image(masks[:, None], boxes, (192, 256))[:, 0]
    assert (ours - theirs).abs().max() < 0.08
    assert (ours - theirs).abs().mean() < 0.002


def test_a_mask_that_is_one_everywhere_fills_its_box_and_fades_within_half_a_cell():
    box = torch.tensor([[28.0, 28.0, 84.0, 140.0]])  # cells of 2×4 pixels
    (found,) = paste(torch.ones(1, 28, 28), box, (160, 112))
    assert (found[30:138, 29:83] > 0.9999).all()
    outside = found.clone()
    outside[26:142, 27:85] = 0
    assert not outside.any()
    assert 0 < found[80, 27] < 1 and 0 < found[27, 60] < 1


def test_where_people_overlap_the_larger_counts():
    boxes = torch.tensor([[0.0, 0, 28, 28], [14.0, 0, 42, 28]])
    masks = torch.stack([torch.full((28, 28), 0.25), torch.full((28, 28), 0.75)])
    (found,) = paste(masks, boxes, (28, 42))
    assert found[10, 5] == 0.25 and found[10, 20] == 0.75 and found[10, 35] == 0.75


def test_nobody_gives_zeros_of_the_true_size():
    found = paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (20, 30))
    assert found.shape == (1, 20, 30) and not found.any()


# ── which classes ────────────────────────────────────────────────────────────────────────────


def injected(monkeypatch: pytest.MonkeyPatch, labels: list[int]) -> None:
    """Puts one box per label behind the detector, whose mask is 1 for its own class only."""
    boxes = torch.tensor([[16.0 * n, 0, 16.0 * n + 16, 48] for n in range(len(labels))])
    label = torch.tensor(labels)

    def found(network, x):
        count = len(labels)
        return Detections({}, (64, 64), [boxes], [label], [torch.linspace(1, 0.9, count)])

    def heads(pool, head, predictor, found):
        logits = torch.full((len(found.labels[0]), 91, 28, 28), -100.0)
        for row, own in enumerate(found.labels[0]):
            logits[row, own] = 100.0
        return logits

    monkeypatch.setattr(person_segmentation, "detect", found)
    monkeypatch.setattr(person_segmentation, "run_head", heads)


@pytest.fixture(scope="module")
def rcnn_weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("w"), "maskrcnn_resnet50_fpn_v2")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 255, 255, 0]),
        ({"things": True}, [255, 255, 255, 255]),
        ({"people": 1}, [0, 255, 0, 0]),
        ({"people": 2, "things": True}, [255, 255, 0, 0]),
    ],
)
def test_people_or_things(rcnn_weights, monkeypatch, settings, expected):
    config = MaskConfig(weights=str(rcnn_weights), detector_size=48, **settings)
    deriver = MaskDeriver(config)
    injected(monkeypatch, [17, 1, 1, 62])
    (derived,) = deriver.derive(iter([np.zeros((48, 64, 3), np.uint8)]), 1, 24)
    assert derived.shape == (24, 32, 1)
    assert derived[12, [3, 11, 19, 27], 0].tolist() == expected


def test_mask_rcnn_finds_somebody_in_noise(rcnn_weights):
    config = MaskConfig(weights=str(rcnn_weights), detector_size=32, min_score=0.05, people=2)
    (derived,) = MaskDeriver(config).derive(iter(noise_frames(1).numpy()), 1, 24)
    assert derived.shape == (24, 32, 1) and derived.any()


@pytest.mark.parametrize("things", [False, True])
def test_a_segmentation_networks_own_shares(things):
    network = random_network("lraspp_mobilenet_v3_large", num_classes=21)
    x = imagenet_input(noise_frames(2).numpy(), "cpu")
    with torch.inference_mode():
        found = masks_of_pixels(network, things, x, (48, 64))
        share = network(x)["out"].softmax(1)
    expected = share[:, 1:].sum(1) if things else share[:, 15]
    torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize(
    ("model", "options"),
    [("lraspp_mobilenet_v3_large", {}), ("deeplabv3_resnet50", {"aux_loss": True})],
)
def test_segmentation_networks_load_and_run(tmp_path, model, options):
    weights = random_weights(tmp_path, model, num_classes=21, **options)
    deriver = MaskDeriver(MaskConfig(model=model, weights=str(weights), detector_size=64))
    frames = noise_frames(3).numpy()
    derived = list(deriver.derive(iter(frames), 2, 24))
    assert [d.shape for d in derived] == [(24, 32, 1)] * 2
    (alone,) = deriver.derive(iter(frames[2:]), 2, 24)
    np.testing.assert_array_equal(derived[1], alone)
    assert MaskDeriver.describe(deriver.config, "cpu")["detector_size"] == 64


def test_another_model_is_one_sentence():
    with pytest.raises(UsageError, match=r"no model maskrcnn for this view.*there are maskrcnn_re"):
        MaskDeriver.describe(MaskConfig(model="maskrcnn"), "cpu")


def test_a_mirrored_mask():
    view = get_view("mask")
    frames = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(view.flip(frames)[0, :, :, 0], frames[0, :, ::-1, 0])
    assert view.to_float(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item() == 1
