"""Derives the pose view with torchvision's Keypoint R-CNN (He et al. 2017), as CoCon does.

For each person the keypoint head returns 17 maps of 56×56 logits over the box. CoCon's recipe (Rai
et al. 2021, its published code): enlarge the maps bicubically to the box; take exp and divide by
the sum of exp over the 56×56 cells, so that a peak's height does not depend on the box's size;
multiply by the detection's score; sum over people; multiply by 255 and clip at 255.

Legend: B frames, P people, J = 17 joints, S = 56 cells, h and w pixels of the stored frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidssl.views.rcnn import (
    best_detections,
    box_coordinates,
    detect,
    run_head,
    sample_boxes,
    scale_boxes,
)
from vidssl.views.torchvision_networks import NetworkDeriver, find_weights

PERSON = 1
# How the SHA-256 of torchvision's COCO_V1 begins; it was trained with BatchNorm of eps 0.
TRAINED_WITHOUT_EPS = "fc266e95"


@dataclass(frozen=True)
class KeypointConfig:
    """Settings of the heatmaps; the defaults are CoCon's.

    Attributes:
        model: torchvision's name of the network.
        weights: a file; empty: torchvision's, in torch's cache.
        min_score: detections with a lower score are ignored.
        people: at most so many per frame, those with the highest scores.
        detector_size: short side at which the network sees frames; 0: 192. It was trained at 640
            to 800, where it finds small people better.
    """

    model: str = "keypointrcnn_resnet50_fpn"
    weights: str = ""
    min_score: float = 0.8
    people: int = 20
    detector_size: int = 0


class KeypointDeriver(NetworkDeriver):
    """Makes heatmaps of joints from frames."""

    Config = KeypointConfig
    models: ClassVar = {"keypointrcnn_resnet50_fpn": 192}

    def __init__(self, config: KeypointConfig, device: str = "cpu") -> None:
        super().__init__(config, device)
        weights = find_weights(config.model, config.weights)
        self.network: Any = self.load(weights, box_score_thresh=config.min_score)
        if weights.sha256.startswith(TRAINED_WITHOUT_EPS):
            for part in self.network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eps = 0.0

    def see(self, x_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
        found = best_detections(detect(self.network, x_B3HW), self.config.people, PERSON)
        heads = self.network.roi_heads
        logits_PJSS = run_head(
            heads.keypoint_roi_pool, heads.keypoint_head, heads.keypoint_predictor, found
        )
        seen = (x_B3HW.shape[2], x_B3HW.shape[3])
        people = [len(boxes) for boxes in found.boxes]
        return torch.stack(
            [
                heatmaps(logits, scale_boxes(boxes, seen, size), scores, size)
                for logits, boxes, scores in zip(
                    logits_PJSS.split(people), found.boxes, found.scores, strict=True
                )
            ]
        )


def heatmaps(
    logits_PJSS: Tensor, boxes_P4: Tensor, scores_P: Tensor, size: tuple[int, int]
) -> Tensor:
    """Returns one frame's map of every joint, float [J, h, w]; zeros if there is no person.

    A value of 1 means that all of one person's probability lies in this pixel.

    Args:
        boxes_P4: left, top, right, bottom, in pixels of the stored frame.
        size: its (h, w).
    """
    # exp(s) / Σ exp, computed in logarithms, so that nothing overflows.
    share = logits_PJSS - logits_PJSS.flatten(2).logsumexp(2)[..., None, None]
    share_PJhw = sample_boxes(share, boxes_P4, size, "bicubic", "border").exp()
    x_Pw, y_Ph = box_coordinates(boxes_P4, size)
    inside_Phw = (y_Ph.abs() < 1)[:, :, None] & (x_Pw.abs() < 1)[:, None, :]
    return torch.einsum("pjhw,phw->jhw", share_PJhw, inside_Phw * scores_P[:, None, None])
