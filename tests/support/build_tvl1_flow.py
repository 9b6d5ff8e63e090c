"""Writes tests/data/tvl1.npz: OpenCV's TV-L1 flow of made-up pairs.

    python tests/support/build_tvl1_flow.py

Needs opencv-contrib-python 5, whose DualTVL1 (default parameters) is the reference. Pictures are
stored beside the flow, so that reading it back needs neither OpenCV nor the same random numbers.
Flow is stored in 1/2048 pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
from flow_scenes import Scene, scenes
from paths import DATA

PLACE = DATA / "tvl1.npz"
STEPS = 2048  # of one pixel
SIZES = {
    (96, 128): None,  # all scenes
    (75, 101): ("waves",),
    (25, 33): ("drift",),
    (256, 340): ("thing", "turn"),
}


def opencv_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns OpenCV's TV-L1 flow with default parameters, float32 [H, W, 2]."""
    flow: np.ndarray = cv2.optflow.DualTVL1OpticalFlow_create().calc(before, after, None)
    return flow


def chosen() -> list[Scene]:
    return [
        one
        for (height, width), names in SIZES.items()
        for one in scenes(height, width, seed=height)
        if names is None or one.name in names
    ]


def main() -> None:
    assert cv2.__version__.startswith("5."), "the reference is OpenCV 5"
    arrays = {}
    for one in chosen():
        height, width = one.before.shape
        name = f"{one.name}-{width}x{height}"
        arrays[f"{name}/pictures"] = np.stack([one.before, one.after])
        for kind, flow in (
            ("opencv", opencv_flow(one.before, one.after)),
            ("truth", one.flow),
        ):
            # Differences from pixel to pixel are what deflate can make small.
            whole = np.rint(flow * STEPS).astype(np.int16)
            arrays[f"{name}/{kind}"] = np.diff(whole, axis=1, prepend=np.int16(0))
    np.savez_compressed(PLACE, **arrays)
    print(f"wrote {PLACE}: {PLACE.stat().st_size / 1e6:.2f} MB, OpenCV {cv2.__version__}")


if __name__ == "__main__":
    main()
