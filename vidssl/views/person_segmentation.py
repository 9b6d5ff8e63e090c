"""Derives the mask view with a torchvision network that segments people.

Mask R-CNN (He et al. 2017) returns 28×28 probabilities over each box; where boxes overlap, the
largest counts. DeepLabV3 (Chen et al. 2017) and LR-ASPP (Howard et al. 2019) classify every pixel
at once. CoCon's published masks show all things, not only people: the setting `things`.

Legend: B frames, P boxes, K classes, S = 28 cells, h and w pixels of the stored frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.views.rcnn import best_detections, detect, run_head, sample_boxes, scale_boxes
from vidssl.views.torchvision_networks import NetworkDeriver, find_weights, half_precision

COCO_PERSON = 1
VOC_CLASSES, VOC_PERSON, VOC_BACKGROUND = 21, 15, 0


@dataclass(frozen=True)
class MaskConfig:
    """Settings of the masks.

    Attributes:
        model: maskrcnn_resnet50_fpn_v2, deeplabv3_resnet50 or lraspp_mobilenet_v3_large.
        weights: a file; empty: torchvision's, in torch's cache.
        things: all things that the network knows, not only people.
        min_score: of Mask R-CNN; detections with a lower score are ignored.
        people: of Mask R-CNN; at most so many people (or things) per frame, by score.
        detector_size: short side at which the network sees frames; 0: 192 for Mask R-CNN, as
            in CoCon, and 520 for the others, as they were trained.
    """

    model: str = "maskrcnn_resnet50_fpn_v2"
    weights: str = ""
    things: bool = False
    min_score: float = 0.8
    people: int = 20
    detector_size: int = 0


class MaskDeriver(NetworkDeriver):
    """Makes soft masks of people from frames."""

    Config = MaskConfig
    models: ClassVar = {
        "maskrcnn_resnet50_fpn_v2": 192,
        "deeplabv3_resnet50": 520,
        "lraspp_mobilenet_v3_large": 520,
    }

    def __init__(self, config: MaskConfig, device: str = "cpu") -> None:
        super().__init__(config, device)
        load = partial(self.load, find_weights(config.model, config.weights))
        self._see: Callable[[Tensor, tuple[int, int]], Tensor]
        if config.model.startswith("maskrcnn"):
            network = load(box_score_thresh=config.min_score)
            label = None if config.things else COCO_PERSON
            self._see = partial(masks_of_boxes, network, config.people, label)
        else:
            auxiliary = {"aux_loss": True} if config.model.startswith("deeplab") else {}
            network = load(num_classes=VOC_CLASSES, **auxiliary)
            self._see = partial(masks_of_pixels, network, config.things)

    def see(self, x_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
        return self._see(x_B3HW, size)


def masks_of_boxes(
    rcnn: Any, most: int, label: int | None, x_B3HW: Tensor, size: tuple[int, int]
) -> Tensor:
    """Returns Mask R-CNN's masks: [B, 1, h, w] in 0..1.

    Args:
        most: detections per frame, at most.
        label: number of the wanted class; None: all classes.
    """
    found = best_detections(detect(rcnn, x_B3HW), most, label)
    heads = rcnn.roi_heads
    logits_PKSS = run_head(heads.mask_roi_pool, heads.mask_head, heads.mask_predictor, found)
    label_P = torch.cat(found.labels)
    own_PSS = logits_PKSS[torch.arange(len(label_P), device=label_P.device), label_P].sigmoid()
    seen = (x_B3HW.shape[2], x_B3HW.shape[3])
    counts = [len(boxes) for boxes in found.boxes]
    return torch.stack(
        [
            paste(own, scale_boxes(boxes, seen, size), size)
            for own, boxes in zip(own_PSS.split(counts), found.boxes, strict=True)
        ]
    )


def paste(mask_PSS: Tensor, boxes_P4: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns one frame's mask [1, h, w], the maximum over all boxes; zeros if there is none.

    Args:
        mask_PSS: probabilities over each box.
        boxes_P4: left, top, right, bottom, in pixels of the stored frame.
    """
    # Padded with zeros, so that a mask fades over the box's edge, half a cell to either side.
    mask_Phw = sample_boxes(mask_PSS[:, None], boxes_P4, size, "bilinear", "zeros")[:, 0]
    nothing = mask_Phw.new_zeros(1, *size)
    return torch.cat([nothing, mask_Phw]).amax(0, keepdim=True)


def masks_of_pixels(network: Any, things: bool, x_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a segmentation network's masks: [B, 1, h, w] in 0..1."""
    with half_precision(x_B3HW.device.type):
        logits_BKHW = network(x_B3HW)["out"]
    share_BKHW = logits_BKHW.float().softmax(1)
    own = 1 - share_BKHW[:, VOC_BACKGROUND] if things else share_BKHW[:, VOC_PERSON]
    return F.interpolate(own[:, None], size, mode="bilinear", align_corners=False, antialias=True)
