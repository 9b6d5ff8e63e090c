"""Runs torchvision's R-CNNs step by step: first the boxes, then a mask or keypoint head on them.

Called as a whole, these networks draw each detection at full size, one at a time, which is slow.
Convolutions run in float16 on CUDA; boxes are computed in float32, where half a pixel counts.

Legend: B frames, P people found in a frame, H and W pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from vidssl.views.torchvision_networks import half_precision

DIVISOR = 32  # how many times smaller than the input the deepest feature map is


@dataclass(frozen=True)
class Detections:
    """The detections in a batch of frames.

    Attributes:
        features: the feature maps, from which heads pool.
        padded: (height, width) of the network's input with its padding.
        boxes: per frame [P, 4]: left, top, right, bottom, in pixels of the input.
        labels: per frame [P].
        scores: per frame [P], in descending order.
    """

    features: dict[str, Tensor]
    padded: tuple[int, int]
    boxes: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]


def detect(rcnn: nn.Module, x_B3HW: Tensor) -> Detections:
    """Finds boxes in frames that :func:`vidssl.views.torchvision_networks.imagenet_input` made.

    The network's `box_score_thresh` decides which boxes count.
    """
    batch, _, height, width = x_B3HW.shape
    x = F.pad(x_B3HW, (0, -width % DIVISOR, 0, -height % DIVISOR))
    padded = (x.shape[2], x.shape[3])
    device = x.device.type
    with half_precision(device):
        features = {name: map.float() for name, map in rcnn.backbone(x).items()}
    proposals, _ = rcnn.rpn(ImageList(x, [(height, width)] * batch), features)
    heads = rcnn.roi_heads
    # torchvision infers a map's scale from sizes; only the padded size is an exact multiple.
    pooled = heads.box_roi_pool(features, proposals, [padded] * batch)
    with half_precision(device):
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    boxes, scores, labels = heads.postprocess_detections(
        logits.float(), deltas.float(), proposals, [(height, width)] * batch
    )
    return Detections(features, padded, boxes, labels, scores)


def best_detections(found: Detections, most: int, label: int | None = None) -> Detections:
    """Returns the `most` detections of highest score in each frame, of one class or of any."""

    def chosen(values: list[Tensor]) -> list[Tensor]:
        if label is None:
            return [v[:most] for v in values]
        return [v[of == label][:most] for v, of in zip(values, found.labels, strict=True)]

    return replace(
        found, boxes=chosen(found.boxes), labels=chosen(found.labels), scores=chosen(found.scores)
    )


def run_head(pool: nn.Module, head: nn.Module, predictor: nn.Module, found: Detections) -> Tensor:
    """Returns the output of a head for every box, frame by frame: float32 [ΣP, …]."""
    shapes = [found.padded] * len(found.boxes)
    pooled = pool(found.features, found.boxes, shapes)
    with half_precision(pooled.device.type):
        output: Tensor = predictor(head(pooled))
    return output.float()


# ── from a box to the frame ──────────────────────────────────────────────────────────────────


def sample_boxes(
    maps_PCSS: Tensor, boxes_P4: Tensor, size: tuple[int, int], mode: str, padding: str
) -> Tensor:
    """Returns each box's square map, resampled to the frame: [P, C, h, w].

    The map is sampled at pixel centres. Boxes may begin and end within a pixel; they are not
    rounded to whole pixels.

    Args:
        boxes_P4: left, top, right, bottom, in pixels of the frame.
        size: (h, w) of the frame.
        mode: bilinear or bicubic.
        padding: the values outside the box: "zeros", or "border" to repeat its edge.
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
    """Returns the pixel centres in coordinates of each box, from -1 to 1: x [P, w] and y [P, h].

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
    """Returns boxes rescaled to another frame size; sizes are (height, width)."""
    y, x = after[0] / before[0], after[1] / before[1]
    return boxes_P4 * boxes_P4.new_tensor([x, y, x, y])
