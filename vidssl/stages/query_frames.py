"""A video file shown the way a pack's videos are.

It is decoded, resized and encoded by the very functions and parameters that pack and extract-flow
used, so that a packed video finds itself at similarity 1. Nothing that runs on a training machine
imports this: it needs a decoder and the flow algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vidssl.errors import VidsslError
from vidssl.shards import ShardReader
from vidssl.stages.extract_flow import extract_video
from vidssl.stages.gallery import Gallery, Stream
from vidssl.stages.pack import pack_video
from vidssl.video import Source
from vidssl.views import get_view
from vidssl.views.flow_algorithms import get_flow_method


@dataclass(frozen=True)
class QueryFrames:
    """One decoded video as a source of frames, stored as the gallery is."""

    blobs: Mapping[str, Sequence[bytes]]
    params: Mapping[str, Mapping[str, Any]]
    fps: float

    def frame_count(self, view: str) -> np.ndarray:
        """Gives the frames of the one video: int [1]."""
        return np.array([len(self.blobs[view])])

    def frames(self, view: str, video: int, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Gives decoded frames: uint8 [T, H, W, C]; the one video is number 0."""
        codec = self.params[view]["codec"]
        return np.stack([get_view(view).decode(self.blobs[view][t], codec) for t in frames])


def show_like(source: Source, gallery: Gallery, sheet: bool) -> QueryFrames:
    """Decodes a video file and stores each view of it as the gallery's was.

    Args:
        sheet: also show it as rgb, for the contact sheet.

    Raises:
        VidsslError: it cannot be decoded, or a view cannot be derived.
    """
    views = {stream.subject.stream for stream in gallery.streams} | ({"rgb"} if sheet else set())
    params = gallery.reader.views
    blobs: dict[str, Sequence[bytes]] = {}
    fps = 0.0
    for view in sorted(views):
        if view == "rgb":
            product = pack_video(source, params[view], None, {})
        elif view == "flow":
            product = extract_video(source, params[view])
        else:
            raise VidsslError(f"a query cannot be shown as {view}: only as rgb and flow")
        assert product.record is not None
        blobs |= product.blobs
        fps = product.record.fps
    return QueryFrames(blobs, params, fps)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Turns OpenCV's threads off, as extraction does: DIS flow depends on how many there are."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def flow_note(reader: ShardReader, streams: Sequence[Stream]) -> list[str]:
    """Tells when this version's flow algorithm is not the one the gallery's flow was made with."""
    if all(stream.subject.stream != "flow" for stream in streams):
        return []
    recorded = reader.views["flow"]
    ours = dict(get_flow_method(recorded["method"]).params)
    if recorded.get("method_params", ours) == ours:
        return []
    return [
        f"the gallery's flow was made by {recorded['method']} with other parameters than this "
        "version uses for the query: similarities are a little low"
    ]
