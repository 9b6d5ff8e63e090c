"""Regions of a frame that hold one person, upright, and the maps between region and frame.

A region is a square that is turned so that the person's trunk points up. BlazePose (Bazarevsky et
al. 2020) takes it from two points: the middle of the hips, and a point on the circle around the
whole person, above the head.

Coordinates: x to the right and y down, in pixels; the middle of a frame's first pixel is (½, ½).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROOM = 1.25  # side of a region over the diameter of the circle, as in the published pipeline


@dataclass(frozen=True)
class Region:
    """A turned square.

    Attributes:
        x, y: its middle.
        side: in pixels.
        angle: radians by which it is turned clockwise as seen on the screen; 0: upright.
    """

    x: float
    y: float
    side: float
    angle: float

    def scaled(self, scale: float) -> Region:
        """Returns the same region of a frame that was resized by `scale`."""
        return Region(self.x * scale, self.y * scale, self.side * scale, self.angle)

    def to_frame(self, cells: int) -> np.ndarray:
        """Returns the affine map from pixels of a picture of the region to pixels of the frame.

        Args:
            cells: side of the picture of the region.

        Returns:
            [2, 3], between indices of pixels, as cv2.warpAffine takes it.
        """
        step = self.side / cells
        cos, sin = step * math.cos(self.angle), step * math.sin(self.angle)
        middle = (cells - 1) / 2
        return np.array(
            [
                [cos, -sin, self.x - 0.5 - middle * (cos - sin)],
                [sin, cos, self.y - 0.5 - middle * (sin + cos)],
            ]
        )

    def points_in_frame(self, share_P2: np.ndarray) -> np.ndarray:
        """Returns points, given as shares 0..1 of the region's sides, in the frame: [P, 2]."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turned = (share_P2 - 0.5) @ np.array([[cos, sin], [-sin, cos]])
        return np.array([self.x, self.y]) + self.side * turned


def region_of(centre: Sequence[float], circle: Sequence[float]) -> Region | None:
    """Returns the region around a person; None if the two points are one, or no numbers.

    Args:
        centre: the middle of the hips (x, y).
        circle: the point above the head (x, y).
    """
    across, down = circle[0] - centre[0], circle[1] - centre[1]
    side = 2 * ROOM * math.hypot(across, down)
    if not math.isfinite(side) or side < 1:
        return None
    return Region(centre[0], centre[1], side, math.atan2(across, -down))


def overlap(first: Region, second: Region) -> float:
    """Returns intersection over union of two regions, their turning left out of account."""
    return box_overlaps(_box(first), _box(second)[None])[0]


def _box(region: Region) -> np.ndarray:
    half = region.side / 2
    return np.array([region.x - half, region.y - half, region.x + half, region.y + half])


def box_overlaps(box_4: np.ndarray, boxes_P4: np.ndarray) -> np.ndarray:
    """Returns intersection over union of a box with each of others: [P].

    Args:
        box_4, boxes_P4: left, top, right, bottom.
    """
    low = np.maximum(box_4[:2], boxes_P4[:, :2])
    high = np.minimum(box_4[2:], boxes_P4[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = np.clip(boxes_P4[:, 2:] - boxes_P4[:, :2], 0, None).prod(1)
    own = np.clip(box_4[2:] - box_4[:2], 0, None).prod()
    return shared / np.maximum(own + areas - shared, 1e-9)
