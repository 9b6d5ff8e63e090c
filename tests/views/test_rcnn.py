"""R-CNNs taken apart find what torchvision's whole ones find; boxes lie where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import noise_frames, random_network
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from vidssl.views.rcnn import (
    best_detections,
    box_coordinates,
    detect,
    run_head,
    sample_boxes,
    scale_boxes,
)
from vidssl.views.torchvision_networks import imagenet_input


@pytest.fixture(scope="module")
def keypoint_network():
    return random_network(
        "keypointrcnn_resnet50_fpn", min_size=50, box_score_thresh=0.3, box_detections_per_img=3
    )


def test_boxes_and_joints_are_those_of_the_whole_network(keypoint_network):
    """Also where the size is no multiple of 32, and for two frames at once."""
    frames = noise_frames(2, 50, 70)
    with torch.inference_mode():
        whole = keypoint_network(list(frames.permute(0, 3, 1, 2).float() / 255))
        found = detect(keypoint_network, imagenet_input(frames.numpy(), "cpu"))
        heads = keypoint_network.roi_heads
        logits = run_head(
            heads.keypoint_roi_pool, heads.keypoint_head, heads.keypoint_predictor, found
        )
    assert found.padded == (64, 96)
    assert sum(len(one["boxes"]) for one in whole) > 2
    at = 0
    for one, boxes, scores, labels in zip(
        whole, found.boxes, found.scores, found.labels, strict=True
    ):
        torch.testing.assert_close(boxes, one["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(scores, one["scores"])
        assert labels.equal(one["labels"])
        joints, _ = heatmaps_to_keypoints(logits[at : at + len(boxes)], boxes)
        torch.testing.assert_close(joints, one["keypoints"], atol=1e-2, rtol=1e-3)
        at += len(boxes)
    assert at == len(logits)


def test_the_surest_of_a_class(keypoint_network):
    with torch.inference_mode():
        found = detect(keypoint_network, imagenet_input(noise_frames(1).numpy(), "cpu"))
    assert len(found.boxes[0]) == 3
    assert best_detections(found, 2).scores[0].equal(found.scores[0][:2])
    assert len(best_detections(found, 5, label=1).boxes[0]) == 3
    assert len(best_detections(found, 5, label=2).boxes[0]) == 0


def test_a_map_lies_in_its_box():
    """A map whose values are its own coordinates says at each pixel where that lies in the box."""
    cells = (torch.arange(8) + 0.5) / 8
    maps = torch.stack([cells.expand(8, 8), cells[:, None].expand(8, 8)])[None]
    box = torch.tensor([[3.25, 2.5, 15.25, 12.5]])
    found = sample_boxes(maps, box, (16, 20), "bilinear", "border")[0]
    x, y = np.meshgrid((np.arange(20) + 0.5 - 3.25) / 12, (np.arange(16) + 0.5 - 2.5) / 10)
    np.testing.assert_allclose(found[0], x.clip(1 / 16, 15 / 16), atol=1e-5)
    np.testing.assert_allclose(found[1], y.clip(1 / 16, 15 / 16), atol=1e-5)
    across, down = box_coordinates(box, (16, 20))
    np.testing.assert_allclose(across[0], 2 * x[0] - 1, atol=1e-6)
    np.testing.assert_allclose(down[0], 2 * y[:, 0] - 1, atol=1e-6)


def test_a_box_thinner_than_a_pixel_has_no_infinite_coordinates():
    across, down = box_coordinates(torch.tensor([[4.0, 4.0, 4.0, 4.5]]), (8, 8))
    assert across.isfinite().all() and down.isfinite().all()


def test_boxes_are_scaled_with_the_frame():
    box = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    assert scale_boxes(box, (100, 200), (50, 400)).tolist() == [[20, 10, 60, 20]]
