"""Measures BlazePose on one core: detection, tracking, and both views of a film.

    python tests/benchmarks/blazepose.py WEIGHTS

CPU time of this process; the film is a drawn person of 320×240 pixels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from drawn_person import draw_person

from vidssl.views.blazepose import detector, landmarks
from vidssl.views.blazepose.derivers import BlazePoseConfig, BlazePoseJoints
from vidssl.views.blazepose.detector import PersonDetector
from vidssl.views.blazepose.interpreter import Network
from vidssl.views.blazepose.landmarks import LandmarkNetwork
from vidssl.views.blazepose.weights import find_weights

FILM = [draw_person((-50 + number, number % 3)) for number in range(100)]


def measure(name: str, work: Callable[[], object]) -> None:
    begin = time.process_time()
    work()
    took = (time.process_time() - begin) / len(FILM)
    print(f"{name}: {1000 * took:.1f} ms of CPU a frame, {1 / took:.1f} frames/s per core")


def main() -> None:
    cv2.setNumThreads(0)
    weights = find_weights(sys.argv[1])
    finder = PersonDetector(
        Network(weights.detector, weights.where, detector.SIDE, detector.SHAPES)
    )
    looker = LandmarkNetwork(
        Network(weights.landmarks, weights.where, landmarks.SIDE, landmarks.SHAPES)
    )
    region = finder.find(FILM[50], 0.4)[0].region
    deriver = BlazePoseJoints(BlazePoseConfig(weights=sys.argv[1]))
    measure("detection", lambda: [finder.find(frame, 0.4) for frame in FILM])
    measure("tracking", lambda: [looker.look(frame, region) for frame in FILM])
    for views in (("pose",), ("mask",), ("pose", "mask")):
        made = " and ".join(views)
        measure(made, lambda v=views: list(deriver.derive_together(v, FILM, 1, 96)))


if __name__ == "__main__":
    main()
