"""The flow of one video: decodes it, estimates the flow between its frames and encodes that flow.

Workers call these functions, so each can be pickled. `params` is what
:func:`vidssl.stages.extract_flow.flow_params` returns, and what is recorded with the flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from vidssl.dataset.coded_frames import NoVectors
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.extraction.decoded_video import CodedVideo, CountedVideo, DecodedVideo, UnusableVideo
from vidssl.extraction.gpu_flow import FrameChunk, in_chunks
from vidssl.extraction.process_pool import VideoResult
from vidssl.extraction.worker_memory import is_shortage
from vidssl.optical_flow.algorithms import (
    FlowMethod,
    derive_flow,
    derive_together,
    flow_method,
    pixel_methods,
)
from vidssl.optical_flow.motion_vectors import MANY_MISSING, MotionVectorFlow
from vidssl.optical_flow.working_size import in_pixels_of, working_frame
from vidssl.shards import VideoRecord
from vidssl.views.flow import store_pixels
from vidssl.views.resize import short_side


def extract_video_flow(
    source: Source,
    params: Mapping[str, Any],
    device: str = "cpu",
    weights: str = "",
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Decodes one video and encodes the flow between its frames.

    Args:
        device: cpu or cuda.
        weights: file of a network's weights; empty: torch's cache.

    Raises:
        UnusableVideo: fewer than two frames, frames too small for the method, or a codec without
            the motion vectors that it reads.
        UnreadableVideo: nothing can be decoded, or a bound is exceeded.
    """
    method = flow_method(params["method"], params["method_params"], weights)
    video, flows = _opened(source, method, params, device, bounds)
    try:
        blobs = [encode_flow(flow, params) for flow in flows]
    except cv2.error as error:
        if is_shortage(error):
            raise MemoryError from error
        raise _too_small(video, method) from error
    return VideoResult(_record(video), {"flow": blobs})


def _opened(
    source: Source, method: FlowMethod, params: Mapping[str, Any], device: str, bounds: VideoBounds
) -> tuple[CountedVideo[Any], Iterator[np.ndarray]]:
    """Returns a video, and its flows, which read it when they are asked for."""
    size = params["working_size"]
    if method.read_vectors is not None:
        coded = CodedVideo(source, bounds)
        return coded, _vector_flows(coded, method.read_vectors(), size, params["stored_size"])
    video = DecodedVideo(source, bounds)
    frames = _large_enough(video, method, size)
    if device != "cpu" and method.batched is not None:
        return video, derive_together(frames, method.batched(device), size, method.colour)
    assert method.start is not None  # as of all that read no vectors
    return video, derive_flow(frames, method.start(), size, method.colour)


def _vector_flows(
    video: CodedVideo, reader: MotionVectorFlow, size: int | None, stored: int | None
) -> Iterator[np.ndarray]:
    """Yields the flow that a video's motion vectors tell; notes where many are missing."""
    try:
        yield from reader.flows(video, size, stored)
    except NoVectors as error:
        others = ", ".join(pixel_methods())
        raise UnusableVideo(
            f"{error}; extract-flow has other methods, which need none: {others}"
        ) from error
    if reader.missing > MANY_MISSING:
        video.notes.append(
            f"{reader.missing:.0%} of its flow has no motion vectors: it repeats the flow before, "
            "or is 0"
        )


def stream_video_frames(
    source: Source, params: Mapping[str, Any], bounds: VideoBounds = DEFAULT_BOUNDS
) -> Iterator[FrameChunk | VideoResult]:
    """Decodes one video; yields the frames at the method's working size, then the video's record.

    Raises:
        UnusableVideo: as :func:`extract_video_flow`.
        UnreadableVideo: nothing can be decoded, or a bound is exceeded.
    """
    method = flow_method(params["method"], params["method_params"])
    size, video = params["working_size"], DecodedVideo(source, bounds)
    yield from in_chunks(
        working_frame(frame, size, method.colour) for frame in _large_enough(video, method, size)
    )
    yield VideoResult(_record(video))


def encode_flow(flow: np.ndarray, params: Mapping[str, Any]) -> bytes:
    """Returns one flow as a blob: resized to the stored size, in 8 bits, compressed.

    Args:
        flow: float32 [H, W, 2], in pixels of the working size.
    """
    stored = short_side(flow.shape[1], flow.shape[0], params["stored_size"])
    if flow.shape[1::-1] != stored:
        flow = cv2.resize(flow, stored, interpolation=cv2.INTER_AREA)
    return store_pixels(flow, params["codec"], params["bound"])


def encode_working_flow(flow: np.ndarray, params: Mapping[str, Any]) -> bytes:
    """Returns one flow as a blob, from flow in pixels of the frames that the method was given."""
    return encode_flow(in_pixels_of(flow, params["working_size"]), params)


def _large_enough(
    video: DecodedVideo, method: FlowMethod, size: int | None
) -> Iterator[np.ndarray]:
    """Yields the frames of a video; raises at the first where they are too small for the method."""
    for frame in video:
        if min(short_side(video.width, video.height, size)) < method.smallest:
            raise _too_small(video, method)
        yield frame


def _too_small(video: CountedVideo[Any], method: FlowMethod) -> UnusableVideo:
    return UnusableVideo(f"{method.name} cannot do frames of {video.width}x{video.height}")


def _record(video: CountedVideo[Any]) -> VideoRecord:
    if video.count < 2:
        raise UnusableVideo("it has one frame only, and flow needs two")
    return video.record()
