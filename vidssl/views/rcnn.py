"""Torchvision's R-CNNs taken apart: boxes first, and what their heads say of boxes afterwards.

Taken whole they make a picture of every detection on the way, one at a time. Convolutions run in
float16 on CUDA; boxes are computed in float32, where half a pixel still counts.

Legend: B frames, P people found in a frame, H and W pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from vidssl.views.torchvision_networks import half_precision

DIVISOR = 32  # the deepest of the feature maps is that many times smaller


@dataclass(frozen=True)
class Detections:
    """What was found in a batch of frames.

    Attributes:
        features: the maps that heads look at.
        padded: (height, width) of the network's input with its padding.
        boxes: per frame [P, 4]: left, top, right, bottom, in pixels of the input.
        labels: per frame [P].
        scores: per frame [P], the surest first.
    """

    features: dict[str, Tensor]
    padded: tuple[int, int]
    boxes: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]


def detect(rcnn: nn.Module, x_B3HW: Tensor) -> Detections:
    """Finds boxes in frames that :func:`vidssl.views.torchvision_networks.imagenet_input` made.

    What counts as found is up to the network's `box_score_thresh`.
    """
    batch, _, height, width = x_B3HW.shape
    x = F.pad(x_B3HW, (0, -width % DIVISOR, 0, -height % DIVISOR))
    padded = (x.shape[2], x.shape[3])
    device = x.device.type
    with half_precision(device):
        features = {name: map.float() for name, map in rcnn.backbone(x).items()}
    proposals, _ = rcnn.rpn(ImageList(x, [(height, width)] * batch), features)
    heads = rcnn.roi_heads
    # The scale of a map is guessed from sizes; only the padded one is an exact multiple.
    pooled = heads.box_roi_pool(features, proposals, [padded] * batch)
    with half_precision(device):
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    boxes, scores, labels = heads.postprocess_detections(
        logits.float(), deltas.float(), proposals, [(height, width)] * batch
    )
    return Detections(features, padded, boxes, labels, scores)


def surest(found: Detections, most: int, label: int | None = None) -> Detections:
    """Returns at most `most` detections of each frame, the surest ones, of one class or of any."""

    def chosen(values: list[Tensor]) -> list[Tensor]:
        if label is None:
            return [v[:most] for v in values]
        return [v[of == label][:most] for v, of in zip(values, found.labels, strict=True)]

    return replace(
        found, boxes=chosen(found.boxes), labels=chosen(found.labels), scores=chosen(found.scores)
    )


def ask_heads(pool: nn.Module, head: nn.Module, predictor: nn.Module, found: Detections) -> Tensor:
    """Returns what a head says of every box, frame by frame: float32 [ΣP, …]."""
    shapes = [found.padded] * len(found.boxes)
    pooled = pool(found.features, found.boxes, shapes)
    with half_precision(pooled.device.type):
        said: Tensor = predictor(head(pooled))
    return said.float()


# ── from a box to the frame ──────────────────────────────────────────────────────────────────


def sample_boxes(
    maps_PCSS: Tensor, boxes_P4: Tensor, size: tuple[int, int], mode: str, padding: str
) -> Tensor:
    """Returns each box's square map as it lies in a frame: [P, C, h, w].

    Pixel centres are looked up in the box, which may begin and end within a pixel, so there is no
    rounding to whole ones.

    Args:
        boxes_P4: left, top, right, bottom, in pixels of the frame.
        size: (h, w) of the frame.
        mode: bilinear or bicubic.
        padding: what lies outside of the box: "zeros", or "border", its edge.
    """
    x_Pw, y_Ph = box_coordinates(boxes_P4, size)
    grid_PhwX = torch.stack(
        [
            x_Pw[:, None, :].expand(-1, size[0], -1),
            y_Ph[:, :, None].expand(-1, -1, size[1]),
        ],
        dim=-1,
    )
    return F.grid_sample(maps_PCSS, grid_PhwX, mode, padding, align_corners=False)


def box_coordinates(boxes_P4: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns where pixel centres lie in each box, -1 and 1 being its edges: x [P, w] and y [P, h].

    A box narrower than a pixel counts as one pixel wide.
    """
    height, width = size
    left, top, right, bottom = boxes_P4.float().unbind(1)
    centres_w = torch.arange(width, device=boxes_P4.device) + 0.5
    centres_h = torch.arange(height, device=boxes_P4.device) + 0.5
    x = (centres_w - left[:, None]) / (right - left).clamp(min=1)[:, None]
    y = (centres_h - top[:, None]) / (bottom - top).clamp(min=1)[:, None]
    return 2 * x - 1, 2 * y - 1


def scale_boxes(boxes_P4: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Returns boxes in pixels of a frame of another size; sizes are (height, width)."""
    y, x = after[0] / before[0], after[1] / before[1]
    return boxes_P4 * boxes_P4.new_tensor([x, y, x, y])
