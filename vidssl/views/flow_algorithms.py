"""Optical flow on a CPU: what extract-flow and retrieve derive the flow view with.

Training never imports this. A frame pair goes in as grey uint8 [H, W], flow comes out as float32
[H, W, 2], in pixels: u to the right, v downward, from the first frame to the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vidssl.errors import UsageError, VidsslError, nearest_name
from vidssl.resizing import short_side

Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FlowMethod:
    """One algorithm with all its parameters.

    Attributes:
        name: as the user types it.
        params: what is recorded with the flow; the same parameters give the same flow.
        start: makes an estimator, which may be used for any number of pairs in one process.
    """

    name: str
    params: Mapping[str, Any]
    start: Callable[[], Estimate]


def get_flow_method(name: str) -> FlowMethod:
    """Gives the flow algorithm called `name`.

    Raises:
        UsageError: there is none.
        VidsslError: this OpenCV lacks it.
    """
    if name not in FLOW_METHODS:
        raise UsageError(
            f"there is no flow method named {name!r}{nearest_name(name, FLOW_METHODS)}: "
            f"the methods are {', '.join(FLOW_METHODS)}"
        )
    method = FLOW_METHODS[name]
    method.start()  # so that a missing algorithm is told before any work
    return method


def derive_flow(
    frames: Iterable[np.ndarray], estimate: Estimate, size: int | None
) -> Iterator[np.ndarray]:
    """Gives the flow between each RGB frame [H, W, 3] and the next: float32 [h, w, 2].

    It is computed with the short side scaled down to `size` (None: as the frames are). Frames
    that are smaller still are not enlarged; their flow is given in pixels of the size asked for
    all the same, so that motion means the same in small and large videos.
    """
    before = None
    for frame in frames:
        height, width = frame.shape[:2]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        working = short_side(width, height, size)
        if working != (width, height):
            grey = cv2.resize(grey, working, interpolation=cv2.INTER_AREA)
        if before is not None:
            flow = estimate(before, grey)
            shortest = min(grey.shape)
            yield flow if size in (None, shortest) else flow * np.float32(size / shortest)
        before = grey


# ── the algorithms


DIS_PARAMS = {"preset": "medium"}
_DIS_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

# OpenCV's defaults, with which CoCLR's and ViCC's flow was made (their extract_ff.py).
TVL1_PARAMS = {
    "tau": 0.25,
    "lambda": 0.15,
    "theta": 0.3,
    "nscales": 5,
    "warps": 5,
    "epsilon": 0.01,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "scale_step": 0.8,
    "gamma": 0.0,
    "median_filtering": 5,
}

FARNEBACK_PARAMS = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
}


def _start_dis() -> Estimate:
    made: dict[tuple[int, ...], cv2.DISOpticalFlow] = {}

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # One for each size: OpenCV's flow changes after pictures of another size.
        if before.shape not in made:
            made[before.shape] = cv2.DISOpticalFlow_create(_DIS_PRESETS[DIS_PARAMS["preset"]])
        flow: np.ndarray = made[before.shape].calc(before, after, None)
        return flow

    return estimate


def _start_tvl1() -> Estimate:
    if not hasattr(cv2, "optflow") or not hasattr(cv2.optflow, "DualTVL1OpticalFlow_create"):
        raise VidsslError(
            "this OpenCV has no TV-L1 flow: install opencv-contrib-python instead of "
            "opencv-python or opencv-python-headless, or use --method dis"
        )
    p = TVL1_PARAMS
    create = cv2.optflow.DualTVL1OpticalFlow_create

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # A new one each time: after a small picture OpenCV's keeps fewer scales for later ones.
        tvl1 = create(
            p["tau"],
            p["lambda"],
            p["theta"],
            p["nscales"],
            p["warps"],
            p["epsilon"],
            p["inner_iterations"],
            p["outer_iterations"],
            p["scale_step"],
            p["gamma"],
            p["median_filtering"],
        )
        flow: np.ndarray = tvl1.calc(before, after, None)
        return flow

    return estimate


def _start_farneback() -> Estimate:
    return lambda before, after: cv2.calcOpticalFlowFarneback(
        before, after, None, flags=0, **FARNEBACK_PARAMS
    )


FLOW_METHODS: dict[str, FlowMethod] = {
    "dis": FlowMethod("dis", DIS_PARAMS, _start_dis),
    "tvl1": FlowMethod("tvl1", TVL1_PARAMS, _start_tvl1),
    "farneback": FlowMethod("farneback", FARNEBACK_PARAMS, _start_farneback),
}
