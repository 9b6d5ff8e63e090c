"""The pose view: heatmaps of 17 joints, in 8 bits.

A stored frame is [H, W, 17]: 255 times the share of the joint's probability that lies in a cell of
the keypoint head's map, weighted by the detection's score and summed over people. This is CoCon's
recipe; :mod:`vidssl.views.keypoint_rcnn` derives it. :mod:`vidssl.views.blazepose` draws Gaussians
that are as high as a joint is visible. It is 0 everywhere if nobody was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from vidssl.views.blazepose import BLAZEPOSE
from vidssl.views.deriver import Deriver
from vidssl.views.stacked_channels import StackedView

if TYPE_CHECKING:
    import torch

# In COCO's order, as in torchvision's and Detectron2's networks.
JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)


def _other_side(joint: str) -> str:
    side, _, part = joint.partition("_")
    return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, joint)


# In a mirrored picture, joint j is where joint SWAPPED[j] was: a left hand becomes a right one.
SWAPPED = tuple(JOINTS.index(_other_side(joint)) for joint in JOINTS)


class PoseView(StackedView):
    """Where the joints of people are: one channel per joint, in COCO's order."""

    name: ClassVar[str] = "pose"
    channels: ClassVar[int] = len(JOINTS)
    default_codec: ClassVar[str] = "webp"
    models: ClassVar[tuple[str, ...]] = ("keypointrcnn_resnet50_fpn", BLAZEPOSE)
    native: ClassVar[str] = f"channels {', '.join(JOINTS)}; x/255 with x in 0..255"

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [..., 17, T, H, W] in 0..1."""
        return x.float() / 255

    def flip(self, frames: np.ndarray) -> np.ndarray:
        """Mirrors [T, H, W, 17] left to right and swaps left and right joints."""
        return np.ascontiguousarray(frames[:, :, ::-1, SWAPPED])

    def flip_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Mirrors [17, T, H, W] left to right and swaps left and right joints."""
        import torch

        return torch.stack([x[joint] for joint in SWAPPED]).flip(-1)

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """Shows each joint in its own hue; the brightest pixel is the most likely one."""
        hues: np.ndarray = np.full((1, self.channels, 3), 255, np.uint8)
        hues[0, :, 0] = np.arange(self.channels) * 180 // self.channels
        colour_J3 = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)[0] / np.float32(max(frame.max(), 1))
        return (frame[..., None] * colour_J3).max(axis=2).astype(np.uint8)

    def deriver(self, model: str = "") -> type[Deriver]:
        if model == BLAZEPOSE:
            from vidssl.views.blazepose.derivers import BlazePoseJoints

            return BlazePoseJoints
        from vidssl.views.keypoint_rcnn import KeypointDeriver  # a network: training needs none

        return KeypointDeriver
