"""Draws people as frames of the views pose and mask.

Legend: J = 17 joints, h and w pixels of the stored frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vidssl.views.blazepose.landmarks import CELLS, COCO, SIDE, Person

EDGE = 3  # standard deviations up to which a joint is drawn


def draw_joints(
    people: Sequence[Person], scale: float, size: tuple[int, int], spread: float
) -> np.ndarray:
    """Returns maps of joints, uint8 [h, w, J]: a Gaussian at each, as high as it is visible.

    Where people overlap the larger value counts.

    Args:
        scale: stored pixels per pixel of the frame in which the people were found.
        size: (w, h).
        spread: standard deviation, in cells of the network's own maps, 64 over a person's region;
            at least half a stored pixel.
    """
    width, height = size
    maps = np.zeros((height, width, len(COCO)), np.float32)
    for person in people:
        deviation = max(0.5, spread * person.region.side * scale / CELLS)
        for joint, (x, y) in enumerate(person.joints_J2 * scale - 0.5):
            reach = EDGE * deviation
            left, right = _within(x, reach, width)
            top, bottom = _within(y, reach, height)
            if left >= right or top >= bottom:
                continue
            across = np.exp(-0.5 * ((np.arange(left, right) - x) / deviation) ** 2)
            down = np.exp(-0.5 * ((np.arange(top, bottom) - y) / deviation) ** 2)
            part = maps[top:bottom, left:right, joint]
            height_of_peak = float(person.visibility_J[joint])
            np.maximum(part, height_of_peak * np.outer(down, across), out=part)
    return _eight_bits(maps)


def _within(middle: float, reach: float, end: int) -> tuple[int, int]:
    """Returns the whole numbers [first, after last) within `reach` of a point, of 0..end."""
    low, high = np.clip([np.ceil(middle - reach), np.floor(middle + reach) + 1], 0, end)
    return int(low), int(high)


def draw_masks(people: Sequence[Person], scale: float, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of all people, uint8 [h, w, 1]; where they overlap the larger value counts.

    Args:
        scale: stored pixels per pixel of the frame in which the people were found.
        size: (w, h).
    """
    width, height = size
    mask = np.zeros((height, width), np.float32)
    for person in people:
        region = person.region.scaled(scale)
        # Shrunk by area first, since the warp looks at four pixels only.
        cells = int(np.clip(round(region.side), 8, SIDE))
        own = cv2.resize(person.mask, (cells, cells), interpolation=cv2.INTER_AREA)
        warped = cv2.warpAffine(own, region.to_frame(cells), size, flags=cv2.INTER_LINEAR)
        np.maximum(mask, warped, out=mask)
    return _eight_bits(mask[..., None])


def _eight_bits(share: np.ndarray) -> np.ndarray:
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)
