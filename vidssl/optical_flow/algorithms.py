"""The optical flow algorithms from which extract-flow and retrieve choose.

Training never imports this. The input is a pair of frames, uint8, grey [H, W] or RGB [H, W, 3] as
the algorithm asks for; the result is flow from the first frame to the second, float32 [H, W, 2],
in pixels: u to the right, v downward. One method, motion-vectors, takes no pixels but what the
codec recorded about the frames of a whole video.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.optical_flow.batched import BatchedFlow, FramePair
from vidssl.optical_flow.motion_vectors import MOTION_VECTOR_PARAMS, MotionVectorFlow
from vidssl.optical_flow.working_size import in_pixels_of, working_frame

Params = Mapping[str, Any]
Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FlowAlgorithm:
    """One algorithm without its parameters: an entry of :data:`FLOW_METHODS`.

    Attributes:
        presets: named sets of all its parameters; the first is the default.
        start: makes an estimator of one pair after another, on a CPU; None for a method that reads
            vectors.
        batched: makes an estimator of many pairs at once, on a device ("cpu" or "cuda").
        colour: whether it takes RGB frames instead of grey ones.
        smallest: short side in pixels below which it cannot work.
        check_device: raises a :class:`VidsslError` where a GPU cannot be used because a package
            is missing.
        read_vectors: makes flow of the codec's motion vectors instead of pixels.
        complete: for networks: returns a preset's parameters with the digest of the weights in a
            file (or in torch's cache). `start` and `batched` then take the file as `weights`.
    """

    presets: Mapping[str, Params]
    start: Callable[..., Estimate] | None
    batched: Callable[..., BatchedFlow] | None = None
    colour: bool = False
    smallest: int = 1
    check_device: Callable[[], None] | None = None
    read_vectors: Callable[[Params], MotionVectorFlow] | None = None
    complete: Callable[[Params, str], Params] | None = None


@dataclass(frozen=True)
class FlowMethod:
    """One algorithm with all its parameters.

    Attributes:
        name: as recorded with the flow.
        params: as recorded with the flow; the same parameters give the same flow.
        start: makes an estimator, which may be used for any number of pairs in one process; None
            where the method reads vectors.
        batched: makes a :class:`BatchedFlow` on a device; None where the method has none.
        colour, smallest, check_device: as of :class:`FlowAlgorithm`.
        read_vectors: makes flow of the coded frames of one video; None for methods of pixels.
    """

    name: str
    params: Params
    start: Callable[[], Estimate] | None
    batched: Callable[[str], BatchedFlow] | None = None
    colour: bool = False
    smallest: int = 1
    check_device: Callable[[], None] | None = None
    read_vectors: Callable[[], MotionVectorFlow] | None = None


def get_flow_method(name: str, preset: str | None = None, weights: str = "") -> FlowMethod:
    """Returns the flow algorithm called `name` with the parameters of a preset, or of its first.

    Args:
        weights: file of a network's weights; empty: torch's cache.

    Raises:
        UsageError: there is no such method or preset, or the method takes no weights.
        VidsslError: this OpenCV does not have it, or the weights are missing.
    """
    if name not in FLOW_METHODS:
        raise UsageError(
            f"there is no flow method named {name!r}{nearest_name(name, FLOW_METHODS)}: "
            f"the methods are {', '.join(FLOW_METHODS)}"
        )
    row, presets = FLOW_METHODS[name], FLOW_METHODS[name].presets
    if weights and row.complete is None:
        raise UsageError(f"{name} is no network: leave --weights away")
    if preset is not None and preset not in presets:
        raise UsageError(
            f"{name} has no preset {preset!r}{nearest_name(preset, presets)}: "
            f"it has {', '.join(presets)}"
        )
    params = presets[preset] if preset else next(iter(presets.values()))
    if row.complete is not None:
        params = row.complete(params, weights)
    method = flow_method(name, params, weights)
    if method.start is not None:
        method.start()  # so that a missing algorithm is reported before any work
    return method


def flow_method(name: str, params: Params, weights: str = "") -> FlowMethod:
    """Returns a method with parameters that were recorded with flow.

    Args:
        weights: as of :func:`get_flow_method`.

    Raises:
        UsageError: this version knows no method of that name.
    """
    if name not in FLOW_METHODS:
        raise UsageError(f"this version of vidssl knows no flow method named {name!r}")
    row = FLOW_METHODS[name]
    file = {"weights": weights} if row.complete is not None else {}
    return FlowMethod(
        name,
        params,
        partial(row.start, params, **file) if row.start else None,
        partial(row.batched, params, **file) if row.batched else None,
        row.colour,
        row.smallest,
        row.check_device,
        partial(row.read_vectors, params) if row.read_vectors else None,
    )


def derive_flow(
    frames: Iterable[np.ndarray], estimate: Estimate, size: int | None, colour: bool = False
) -> Iterator[np.ndarray]:
    """Yields the flow between each RGB frame [H, W, 3] and the next: float32 [h, w, 2].

    It is computed at the working size (:func:`working_frame`), in its pixels
    (:func:`in_pixels_of`).
    """
    for pair in _pairs(frames, size, colour):
        yield in_pixels_of(estimate(pair.before, pair.after), size)


def derive_together(
    frames: Iterable[np.ndarray], method: BatchedFlow, size: int | None, colour: bool = False
) -> Iterator[np.ndarray]:
    """Yields the same as :func:`derive_flow`, by a method that works on many pairs at once."""
    ready: dict[Hashable, np.ndarray] = {}
    given = 0
    for index, flow in method.flows(_pairs(frames, size, colour)):
        ready[index] = flow
        while given in ready:
            yield in_pixels_of(ready.pop(given), size)
            given += 1


def _pairs(frames: Iterable[np.ndarray], size: int | None, colour: bool) -> Iterator[FramePair]:
    working = (working_frame(frame, size, colour) for frame in frames)
    for index, (before, after) in enumerate(pairwise(working)):
        yield FramePair(index, before, after)


def pixel_methods() -> list[str]:
    """Returns the names of the methods that work on any video, whatever its codec."""
    return [name for name, row in FLOW_METHODS.items() if row.start is not None]


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
# The accuracy and the time of the other presets: docs/benchmarks.md, "TV-L1".
TVL1_PRESETS = {
    "published": TVL1_PARAMS,
    "balanced": TVL1_PARAMS | {"epsilon": 0.02},
    "fast": TVL1_PARAMS | {"epsilon": 0.02, "warps": 2, "scale_step": 0.5},
}

FARNEBACK_PARAMS = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
}


def _start_dis(params: Params) -> Estimate:
    made: dict[tuple[int, ...], cv2.DISOpticalFlow] = {}

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # One for each size: after pictures of another size OpenCV's flow is different.
        if before.shape not in made:
            made[before.shape] = cv2.DISOpticalFlow_create(_DIS_PRESETS[params["preset"]])
        flow: np.ndarray = made[before.shape].calc(before, after, None)
        return flow

    return estimate


def _start_tvl1(params: Params) -> Estimate:
    from vidssl.optical_flow.tvl1.estimator import start  # here: the others need no PyTorch

    return start(params)


def _check_triton() -> None:
    from vidssl.optical_flow.tvl1.estimator import check_triton

    check_triton()


def _batch_tvl1(params: Params, device: str) -> BatchedFlow:
    from vidssl.optical_flow.tvl1.estimator import start_batched

    return start_batched(params, device)


def _start_tvl1_of_opencv(p: Params) -> Estimate:
    if not hasattr(cv2, "optflow") or not hasattr(cv2.optflow, "DualTVL1OpticalFlow_create"):
        raise VidsslError(
            "this OpenCV has no TV-L1: install opencv-contrib-python instead of "
            "opencv-python or opencv-python-headless, or use --method tvl1"
        )
    create = cv2.optflow.DualTVL1OpticalFlow_create

    def estimate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # A new one each time: after a small picture OpenCV uses fewer scales for larger ones, too.
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


def _start_farneback(params: Params) -> Estimate:
    return lambda before, after: cv2.calcOpticalFlowFarneback(
        before, after, None, flags=0, **params
    )


RAFT_PRESETS: dict[str, Params] = {
    "large": {"model": "raft_large", "updates": 12},
    "small": {"model": "raft_small", "updates": 12},
}


def _complete_raft(params: Params, weights: str) -> Params:
    from vidssl.optical_flow.raft import with_weights

    return with_weights(params, weights)


def _start_raft(params: Params, weights: str) -> Estimate:
    from vidssl.optical_flow.raft import start

    return start(params, weights)


def _batch_raft(params: Params, device: str, weights: str) -> BatchedFlow:
    from vidssl.optical_flow.raft import start_batched

    return start_batched(params, device, weights)


FLOW_METHODS: dict[str, FlowAlgorithm] = {
    "dis": FlowAlgorithm(
        {"medium": DIS_PARAMS, **{name: {"preset": name} for name in ("fast", "ultrafast")}},
        _start_dis,
    ),
    "tvl1": FlowAlgorithm(
        TVL1_PRESETS, _start_tvl1, _batch_tvl1, smallest=3, check_device=_check_triton
    ),
    "tvl1-opencv": FlowAlgorithm(TVL1_PRESETS, _start_tvl1_of_opencv, smallest=3),
    "farneback": FlowAlgorithm({"default": FARNEBACK_PARAMS}, _start_farneback),
    "motion-vectors": FlowAlgorithm(
        {"default": MOTION_VECTOR_PARAMS}, None, read_vectors=MotionVectorFlow
    ),
    "raft": FlowAlgorithm(
        RAFT_PRESETS, _start_raft, _batch_raft, colour=True, smallest=8, complete=_complete_raft
    ),
}
