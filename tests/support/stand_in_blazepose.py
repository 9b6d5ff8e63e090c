"""A stand-in for BlazePose's interpreter: it finds one figure of coloured dots by its colours.

A figure is drawn by :func:`draw_figure`. The stand-in detector answers at one anchor with the
figure's two points, and the stand-in of the second network with the dots that it sees in its crop,
so that a test can hold where vidssl puts them in the frame.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from vidssl.views.blazepose import detector, landmarks

# Hips, circle, and one joint of each side: values of one channel that nothing else has.
HIPS, CIRCLE, LEFT_WRIST, RIGHT_WRIST = 250, 210, 170, 130
POINTS = {33: HIPS, 34: CIRCLE, 15: LEFT_WRIST, 16: RIGHT_WRIST}


def draw_figure(size: tuple[int, int], places: dict[int, tuple[float, float]]) -> np.ndarray:
    """Returns a black frame (width, height) with a dot of its colour at each of `places`."""
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    for colour, (x, y) in places.items():
        cv2.circle(frame, (round(x), round(y)), 5, (colour, 0, 255), -1)
    return frame


def seen_at(picture: np.ndarray, colour: int) -> tuple[float, float] | None:
    """Returns the middle (x, y) of a dot in a picture of values 0..255, or None."""
    rows, columns = np.nonzero((abs(picture[..., 0] - colour) < 12) & (picture[..., 2] > 225))
    return (columns.mean() + 0.5, rows.mean() + 0.5) if len(rows) > 2 else None


class StandIn:
    """Takes the place of ai-edge-litert's Interpreter; `model` says which network it plays.

    Attributes:
        runs: names of the networks that ran, in order.
    """

    runs: ClassVar[list[str]] = []

    def __init__(self, model: bytes) -> None:
        if model not in (b"detector", b"landmarks"):
            raise ValueError("Model provided has model identifier 'xxxx', should be 'TFL3'")
        self.kind = model.decode()
        module = detector if self.kind == "detector" else landmarks
        self.side, self.shapes = module.SIDE, module.SHAPES

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self):
        return [{"shape": np.array([1, self.side, self.side, 3]), "index": 0}]

    def get_output_details(self):
        return [{"shape": np.array(s), "index": i} for i, s in enumerate(self.shapes)]

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert value.dtype == np.float32 and value.shape == (1, self.side, self.side, 3)
        self.input = value[0]

    def get_tensor(self, index: int) -> np.ndarray:
        return self.outputs[index]

    def invoke(self) -> None:
        StandIn.runs.append(self.kind)
        self.outputs = [np.zeros(shape, np.float32) for shape in self.shapes]
        (self._detect if self.kind == "detector" else self._look)()

    def _detect(self) -> None:
        numbers, logits = self.outputs
        logits[:] = -50
        picture = (self.input + 1) * 127.5
        hips, circle = seen_at(picture, HIPS), seen_at(picture, CIRCLE)
        if hips is None or circle is None:
            return
        logits[0, 1000] = 3
        place = 224 * detector.anchors()[1000]
        box = [hips[0] - place[0], hips[1] - place[1], 40, 40]
        points = [*(np.array(hips) - place), *(np.array(circle) - place), 0, 0, 0, 0]
        numbers[0, 1000] = box + points

    def _look(self) -> None:
        points, presence, mask, maps, _ = self.outputs
        maps[:] = -50
        mask[:] = -50
        table = points.reshape(39, 5)
        table[:, :2], table[:, 3] = -500, -50
        found = {number: seen_at(self.input * 255, colour) for number, colour in POINTS.items()}
        for number, place in found.items():
            if place is not None:
                table[number, :2], table[number, 3] = place, 50
        presence[:] = found[33] is not None and found[34] is not None
        mask[0, self.input[..., 2] > 0.7] = 50
