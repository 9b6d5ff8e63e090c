"""BlazePose's detector: where people are in a frame, as the two points that make a region.

The network is a single-shot detector (Liu et al. 2016). It sees 224×224 pixels and answers for 2254
places, the anchors. All anchors have the size of the picture, so a box is its offset from an
anchor's middle. Overlapping answers are averaged by their scores, as BlazeFace does it.

Legend: A = 2254 anchors, K = 12 numbers for each: the box's middle, width and height, and four
points (hips, circle around the person, shoulders, circle around the upper body), all x before y.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidssl.views.blazepose.interpreter import Network
from vidssl.views.blazepose.regions import Region, box_overlaps, region_of

SIDE = 224
STRIDES = (8, 16, 32, 32, 32)  # of the network's maps, in pixels; two anchors per cell and map
NUMBERS = 12
SHAPES = ((1, 2254, NUMBERS), (1, 2254, 1))
SAME_PERSON = 0.3  # intersection over union from which two answers are about one person


@dataclass(frozen=True)
class Detection:
    """A person that was found, in the frame.

    Attributes:
        score: 0..1.
        region: that holds the person.
    """

    score: float
    region: Region


def anchors() -> np.ndarray:
    """Returns the middles of all anchors as shares of the picture's side: float32 [A, 2]."""
    places = []
    for stride in dict.fromkeys(STRIDES):  # maps of the same stride: anchors lie side by side
        cells = SIDE // stride
        row, column = np.divmod(np.arange(cells * cells), cells)
        middle = (np.stack([column, row], 1) + 0.5) / cells
        places.append(middle.repeat(2 * STRIDES.count(stride), axis=0))
    return np.concatenate(places).astype(np.float32)


class PersonDetector:
    """Finds people in whole frames."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._anchors_A2 = anchors()

    def find(self, frame: np.ndarray, min_score: float) -> list[Detection]:
        """Returns the people in a frame, uint8 [H, W, 3], the highest score first."""
        height, width = frame.shape[:2]
        seen, (left, top) = _letterbox(frame)
        numbers, logits = self._network.run(seen[None] / np.float32(127.5) - 1)
        answers = decode_answers(numbers[0], logits[0, :, 0], self._anchors_A2, min_score)
        longer = max(height, width)
        found = []
        for score, numbers_K in average_overlapping(*answers):
            points = numbers_K[4:8].reshape(2, 2) * longer - (left, top)
            region = region_of(points[0].tolist(), points[1].tolist())
            if region is not None:
                found.append(Detection(score, region))
        return found


def _letterbox(frame: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns a frame in the middle of a black square, and the bars' widths in its own pixels."""
    height, width = frame.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square = np.zeros((SIDE, SIDE, 3), np.float32)
    square[top : top + size[1], left : left + size[0]] = cv2.resize(
        frame, size, interpolation=method
    )
    return square, (left / scale, top / scale)


def decode_answers(
    numbers_AK: np.ndarray, logits_A: np.ndarray, anchors_A2: np.ndarray, min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the answers that reach a score: scores [P], numbers [P, K].

    The numbers of the result are shares of the picture's side; the first four are the box's left,
    top, right and bottom.
    """
    scores_A = 1 / (1 + np.exp(-np.clip(logits_A, -80, 80)))
    chosen = scores_A >= min_score
    numbers = numbers_AK[chosen] / SIDE
    places = anchors_A2[chosen]
    half = numbers[:, 2:4] / 2
    middle = numbers[:, :2] + places
    points = numbers[:, 4:] + np.tile(places, (1, (NUMBERS - 4) // 2))
    return scores_A[chosen], np.concatenate([middle - half, middle + half, points], 1)


def average_overlapping(
    scores_P: np.ndarray, numbers_PK: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """Returns (score, numbers [K]) of each person, the highest score first.

    Answers that overlap the best one are one person's; their mean is weighted by the scores.
    """
    left = np.argsort(-scores_P, kind="stable")
    people = []
    while len(left):
        best = left[0]
        same = box_overlaps(numbers_PK[best, :4], numbers_PK[left, :4]) > SAME_PERSON
        same[0] = True  # also a box without an area
        group = left[same]
        mean = np.average(numbers_PK[group], axis=0, weights=scores_P[group])
        people.append((float(scores_P[best]), mean))
        left = left[~same]
    return people
