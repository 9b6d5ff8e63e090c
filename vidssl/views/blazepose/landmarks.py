"""BlazePose's second network: the joints and the mask of the one person in a region.

It sees 256×256 pixels and returns 39 points (33 of the body, and the two that make the next frame's
region among the others), a map of each point in 64×64 cells, a mask, and whether there is a person
at all. Points are moved to the centre of mass of their map nearby, as the published pipeline does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidssl.views.blazepose.interpreter import Network
from vidssl.views.blazepose.regions import Region, region_of

SIDE, CELLS, POINTS = 256, 64, 39
SHAPES = (
    (1, 5 * POINTS),
    (1, 1),
    (1, SIDE, SIDE, 1),
    (1, CELLS, CELLS, POINTS),
    (1, 3 * POINTS),
)
CENTRE, CIRCLE = 33, 34  # points that make a region
# Of BlazePose's 33 points those of COCO's 17 joints, in COCO's order.
COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
NEARBY = 3  # cells to each side of a point within which its map moves it
SURE = 0.5  # a map below this everywhere moves no point


@dataclass(frozen=True)
class Person:
    """What the network sees in a region.

    Attributes:
        region: that it looked at.
        presence: probability that there is a person.
        joints_J2: (x, y) of COCO's 17 joints in the frame, in pixels.
        visibility_J: probability that a joint is to be seen, 0..1.
        mask: probability that a pixel of the region is the person's, float32 [256, 256].
        next_region: where to look in the next frame; None if the points make none.
    """

    region: Region
    presence: float
    joints_J2: np.ndarray
    visibility_J: np.ndarray
    mask: np.ndarray
    next_region: Region | None


class LandmarkNetwork:
    """Looks at regions of frames."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def look(self, frame: np.ndarray, region: Region) -> Person:
        """Returns what is in a region of a frame, uint8 [H, W, 3]."""
        crop = cv2.warpAffine(
            frame,
            region.to_frame(SIDE),
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        points, presence, mask, maps, _ = self._network.run(crop[None] / np.float32(255))
        points_P5 = points.reshape(POINTS, 5).astype(np.float64)
        share_P2 = refined(points_P5[:, :2] / SIDE, sigmoid(maps[0]))
        places = region.points_in_frame(share_P2)
        return Person(
            region,
            float(presence[0, 0]),
            places[list(COCO)],
            sigmoid(points_P5[list(COCO), 3]),
            sigmoid(mask[0, :, :, 0]),
            region_of(places[CENTRE].tolist(), places[CIRCLE].tolist()),
        )


def refined(share_P2: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Returns points moved to the centre of mass of their map nearby.

    Args:
        share_P2: (x, y) as shares 0..1 of the region's sides.
        maps: probabilities [64, 64, P].
    """
    moved = share_P2.copy()
    for number, (x, y) in enumerate(share_P2 * CELLS):
        if not (0 <= x < CELLS and 0 <= y < CELLS):
            continue
        column, row = int(x), int(y)
        left, top = max(0, column - NEARBY), max(0, row - NEARBY)
        part = maps[top : row + NEARBY + 1, left : column + NEARBY + 1, number]
        if part.max() < SURE:
            continue
        rows, columns = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
        moved[number] = (
            np.average(columns, weights=part) / CELLS,
            np.average(rows, weights=part) / CELLS,
        )
    return moved


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)), of any shape."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
