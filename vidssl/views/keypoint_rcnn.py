"""The pose view derived: torchvision's Keypoint R-CNN (He et al. 2017) and CoCon's heatmaps.

For each person the keypoint head gives 17 maps of 56×56 logits over the box. CoCon's recipe (Rai et
al. 2021, its published code): enlarge them bicubically to the box; exp, divided by the sum of exp
over the 56×56 cells, so that a peak's height does not depend on the box's size; times the
detection's score; summed over people; times 255, at most 255.

Legend: B frames, P people, J = 17 joints, S = 56 cells, h and w pixels of the stored frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidssl.views.rcnn import (
    ask_heads,
    box_coordinates,
    detect,
    sample_boxes,
    scale_boxes,
    surest,
)
from vidssl.views.torchvision_networks import NetworkDeriver, find_weights

PERSON = 1
# The SHA-256 of torchvision's COCO_V1 begins so; it was trained with BatchNorm of eps 0.
TRAINED_WITHOUT_EPS = "fc266e95"


@dataclass(frozen=True)
class KeypointConfig:
    """What decides the heatmaps; defaults: CoCon's.

    Attributes:
        model: torchvision's name of the network.
        weights: a file; empty: torchvision's, in torch's cache.
        min_score: of a detection, below which it is no person.
        people: in a frame, at most, the surest first.
        detector_size: short side at which the network sees frames; 0: 192. It was trained at 640
            to 800, and finds small people better there.
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
        found = surest(detect(self.network, x_B3HW), self.config.people, PERSON)
        heads = self.network.roi_heads
        logits_PJSS = ask_heads(
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
    """Returns one frame's map of every joint: float [J, h, w], 1 where all of one person's share
    is.

    Nobody gives zeros of the true size.

    Args:
        boxes_P4: left, top, right, bottom, in pixels of the stored frame.
        size: its (h, w).
    """
    # exp(s) / Σ exp, taken before exp, where nothing overflows.
    share = logits_PJSS - logits_PJSS.flatten(2).logsumexp(2)[..., None, None]
    share_PJhw = sample_boxes(share, boxes_P4, size, "bicubic", "border").exp()
    x_Pw, y_Ph = box_coordinates(boxes_P4, size)
    inside_Phw = (y_Ph.abs() < 1)[:, :, None] & (x_Pw.abs() < 1)[:, None, :]
    return torch.einsum("pjhw,phw->jhw", share_PJhw, inside_Phw * scores_P[:, None, None])
