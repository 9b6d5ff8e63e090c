"""Heatmaps: CoCon's recipe, joints where they are, and a mirror that knows left from right."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import noise_frames, random_weights
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from vidssl.views import get_view
from vidssl.views.keypoint_rcnn import KeypointConfig, KeypointDeriver, heatmaps
from vidssl.views.pose import JOINTS, SWAPPED
from vidssl.views.rcnn import Detections

POSE = get_view("pose")


def logits_of(cells: np.ndarray, spread: float = 2.0) -> torch.Tensor:
    """Hand-made logits [P, J, 56, 56] whose peaks lie at cells [P, J, 2] (x, y)."""
    rows, columns = np.mgrid[:56, :56]
    distance = np.hypot(columns - cells[..., 0, None, None], rows - cells[..., 1, None, None])
    return torch.from_numpy(10 - (distance / spread) ** 2).float()


def peaks(maps_JHW: np.ndarray) -> np.ndarray:
    """Returns (x, y) of each joint's largest pixel [J, 2]."""
    flat = maps_JHW.reshape(len(maps_JHW), -1).argmax(1)
    return np.stack([flat % maps_JHW.shape[2], flat // maps_JHW.shape[2]], axis=1)


# ── the recipe ───────────────────────────────────────────────────────────────────────────────


def published_recipe(logits, boxes, scores, size):
    """CoCon's, person by person and joint by joint, for boxes of whole pixels."""
    total = torch.zeros(logits.shape[1], *size)
    for person, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        for joint in range(logits.shape[1]):
            small = logits[person, joint][None, None]
            large = F.interpolate(small, (bottom - top, right - left), mode="bicubic")[0, 0]
            share = large.exp() / small.exp().sum()
            total[joint, top:bottom, left:right] += scores[person] * share
    return total


def test_heatmaps_are_the_published_recipe():
    draw = np.random.default_rng(0)
    logits = logits_of(draw.uniform(5, 50, (2, 17, 2)), spread=4)
    logits += torch.from_numpy(draw.normal(0, 1, (2, 17, 1, 1))).float()
    boxes = torch.tensor([[10.0, 20.0, 130.0, 170.0], [60.0, 5.0, 100.0, 60.0]])
    scores = torch.tensor([0.9, 0.8])
    found = heatmaps(logits, boxes, scores, (192, 256))
    expected = published_recipe(logits, boxes, scores, (192, 256))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.max() > 0.01


def test_a_peak_is_the_joints_share_times_the_score():
    """All of the probability in two cells: the larger has e/(e+1) of it."""
    logits = torch.full((1, 17, 56, 56), -100.0)
    logits[:, :, 20:30, 20:30] = 0.0
    found = heatmaps(logits, torch.tensor([[0.0, 0, 56, 56]]), torch.tensor([0.5]), (56, 56))
    assert found[3, 25, 25].item() == pytest.approx(0.5 / 100, rel=1e-4)
    assert found[3, 5, 5] == 0


def test_a_peak_is_as_high_in_a_large_box_as_in_a_small_one():
    logits = logits_of(np.full((1, 17, 2), 27.0), spread=4)
    for side in (40, 80, 160):
        box = torch.tensor([[8.0, 8.0, 8.0 + side, 8.0 + side]])
        largest = heatmaps(logits, box, torch.tensor([1.0]), (192, 192)).amax((1, 2))
        share = logits.flatten(2).softmax(2).amax(2)[0]
        torch.testing.assert_close(largest, share, rtol=0.05, atol=0)


def test_nobody_gives_zeros_of_the_true_size():
    nobody = torch.zeros(0, 17, 56, 56), torch.zeros(0, 4), torch.zeros(0)
    found = heatmaps(*nobody, (40, 60))
    assert found.shape == (17, 40, 60) and not found.any()


def test_outside_of_all_boxes_is_nothing():
    found = heatmaps(
        torch.zeros(1, 17, 56, 56),
        torch.tensor([[10.0, 12.0, 30.0, 40.0]]),
        torch.ones(1),
        (50, 50),
    )
    inside = found[0] > 0
    assert inside[12:40, 10:30].all() and inside.sum() == 28 * 20


# ── where joints land ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(192, 256), (96, 128), (77, 131)])
def test_a_peak_lands_where_the_joint_is(size):
    """Joints at known places of a frame of 192×256, shown at sizes that do not divide it."""
    draw = np.random.default_rng(1)
    box = np.array([30.3, 12.7, 170.9, 188.2])
    cells = draw.integers(3, 53, (1, 17, 2)).astype(float)
    place = box[:2] + (cells[0] + 0.5) / 56 * (box[2:] - box[:2])  # in pixels of 192×256
    scale = np.array([size[1] / 256, size[0] / 192])
    boxes = torch.from_numpy(box * np.tile(scale, 2)).float()[None]
    found = heatmaps(logits_of(cells), boxes, torch.ones(1), size).numpy()
    np.testing.assert_allclose(peaks(found) + 0.5, place * scale, atol=1.0)


def test_peaks_are_torchvisions_joints():
    draw = np.random.default_rng(2)
    logits = logits_of(draw.uniform(3, 53, (1, 17, 2)), spread=3)
    boxes = torch.tensor([[20.4, 31.6, 141.3, 180.9]])
    joints, _ = heatmaps_to_keypoints(logits, boxes)
    found = heatmaps(logits, boxes, torch.ones(1), (192, 256)).numpy()
    np.testing.assert_allclose(peaks(found) + 0.5, joints[0, :, :2], atol=1.01)


# ── left and right ───────────────────────────────────────────────────────────────────────────


def test_joints_are_in_cocos_order_and_swap_in_pairs():
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

    assert list(JOINTS) == KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["keypoint_names"]
    assert SWAPPED == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert [SWAPPED[j] for j in SWAPPED] == list(range(17))


# Somebody who faces the camera, so that the own left is at the right of the picture: (x, y) of a
# frame of 96×128. The left hand is raised.
FACING = {
    "nose": (60, 20), "eye": ((63, 17), (57, 17)), "ear": ((66, 18), (54, 18)),
    "shoulder": ((72, 32), (48, 32)), "elbow": ((82, 24), (43, 45)), "wrist": ((84, 10), (42, 58)),
    "hip": ((67, 58), (53, 58)), "knee": ((68, 74), (52, 74)), "ankle": ((69, 90), (51, 90)),
}  # fmt: skip
# The same person seen in a mirror: at the other side, and it is the right hand that is raised.
IN_THE_MIRROR = {
    "nose": (67, 20), "eye": ((70, 17), (64, 17)), "ear": ((73, 18), (61, 18)),
    "shoulder": ((79, 32), (55, 32)), "elbow": ((84, 45), (45, 24)), "wrist": ((85, 58), (43, 10)),
    "hip": ((74, 58), (60, 58)), "knee": ((75, 74), (59, 74)), "ankle": ((76, 90), (58, 90)),
}  # fmt: skip


def joints_of(person: dict) -> np.ndarray:
    """Returns (x, y) of all joints in order [17, 2]."""
    places = []
    for joint in JOINTS:
        side, _, part = joint.partition("_")
        places.append(person[part][side == "right"] if part else person[joint])
    return np.array(places, float)


def seen(person: dict) -> np.ndarray:
    """Returns a person's stored frame [96, 128, 17], as if a network had found every joint."""
    box = np.array([30.0, 4.0, 98.0, 94.0])
    cells = (joints_of(person) + 0.5 - box[:2]) / (box[2:] - box[:2]) * 56 - 0.5
    boxes = torch.from_numpy(box).float()[None]
    maps = heatmaps(logits_of(cells[None]), boxes, torch.ones(1), (96, 128))
    return (255 * maps).round().byte().permute(1, 2, 0).numpy()


def test_a_mirrored_person_has_the_mirrored_and_swapped_heatmaps():
    facing, mirrored = seen(FACING), seen(IN_THE_MIRROR)
    flipped = POSE.flip(facing[None])[0]
    assert np.abs(flipped.astype(int) - mirrored).max() <= 1
    left, right = JOINTS.index("left_wrist"), JOINTS.index("right_wrist")
    assert peaks(facing.transpose(2, 0, 1))[left].tolist() == [84, 10]
    assert peaks(flipped.transpose(2, 0, 1))[right].tolist() == [43, 10]
    # Mirroring without the swap would be somebody else.
    assert np.abs(facing[:, ::-1].astype(int) - mirrored).max() > 10


def test_to_float_is_in_0_to_1():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(17, 1, 1, 3)
    torch.testing.assert_close(POSE.to_float(x)[5, 0, 0], torch.tensor([0, 0.2, 1]))


# ── through the whole network ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def deriver(tmp_path_factory) -> KeypointDeriver:
    weights = random_weights(tmp_path_factory.mktemp("w"), "keypointrcnn_resnet50_fpn")
    return KeypointDeriver(
        KeypointConfig(weights=str(weights), min_score=0.1, people=2, detector_size=64)
    )


def test_frames_come_in_order_at_the_stride_and_the_stored_size(deriver):
    frames = noise_frames(5, 48, 80).numpy()
    derived = list(deriver.derive(iter(frames), 2, 32))
    assert [d.shape for d in derived] == [(32, 53, 17)] * 3
    assert all(d.dtype == np.uint8 for d in derived)
    (alone,) = deriver.derive(iter(frames[4:]), 2, 32)
    np.testing.assert_array_equal(derived[2], alone)
    assert not np.array_equal(derived[0], derived[2])
    (whole,) = deriver.derive(iter(frames[:1]), 1, None)
    assert whole.shape == (48, 80, 17)


def test_no_video_no_frames(deriver):
    assert list(deriver.derive(iter(()), 2, 32)) == []


def test_nobody_is_found_at_an_impossible_score(deriver):
    deriver.network.roi_heads.score_thresh = 1.1
    try:
        (derived,) = deriver.derive(iter(noise_frames(1).numpy()), 1, 24)
    finally:
        deriver.network.roi_heads.score_thresh = 0.1
    assert derived.shape == (24, 32, 17) and not derived.any()


def test_an_injected_person_comes_out_where_it_is(deriver, monkeypatch):
    """Boxes and logits put in behind the detector, through scaling, 8 bits and the codec."""
    from vidssl.views import keypoint_rcnn

    joints = joints_of(FACING) * 2  # in a frame of 192×256
    box = torch.tensor([60.0, 8.0, 196.0, 188.0])

    def one_person(network, x):
        assert x.shape[2:] == (64, 85)
        of_input = box * 64 / 192
        return Detections(
            {}, (64, 96), [of_input[None]], [torch.ones(1, dtype=torch.int64)], [torch.ones(1)]
        )

    cells = (joints + 0.5 - box[:2].numpy()) / (box[2:] - box[:2]).numpy() * 56 - 0.5
    monkeypatch.setattr(keypoint_rcnn, "detect", one_person)
    monkeypatch.setattr(keypoint_rcnn, "run_head", lambda *_: logits_of(cells[None]))
    frame = np.zeros((192, 256, 3), np.uint8)
    (derived,) = deriver.derive(iter([frame]), 1, 96)
    stored = POSE.decode(POSE.encode(derived))
    np.testing.assert_allclose(peaks(stored.transpose(2, 0, 1)) + 0.5, joints / 2 + 0.25, atol=1)
    assert cv2.countNonZero(stored.max(2)) < 0.2 * 96 * 128
