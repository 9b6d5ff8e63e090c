"""Decodes a query video and derives its views exactly as those of the packed videos.

It uses the same functions and parameters as pack, extract-flow and extract-view, so that a packed
video finds itself at similarity 1. It needs a video decoder and the flow algorithms, so nothing
that runs on a training machine imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from vidssl.base.errors import UsageError, VidsslError
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.extraction.video_flow import extract_video_flow
from vidssl.extraction.video_frames import pack_video
from vidssl.extraction.video_view import derive_video_view
from vidssl.retrieval.gallery import Gallery
from vidssl.views import get_view
from vidssl.views.choose_deriver import recall_deriver, usable_device
from vidssl.views.deriver import Deriver
from vidssl.views.frame_interpolation import read_strided


@dataclass(frozen=True)
class QueryFrames:
    """The frames of one query video, encoded like those of the gallery.

    Attributes:
        blobs: {view: one blob per frame}.
        params: {view: the parameters that the pack records}.
        fps: frames per second, 0 if unknown.
    """

    blobs: Mapping[str, Sequence[bytes]]
    params: Mapping[str, Mapping[str, Any]]
    fps: float

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the number of frames of the one video: int [1]."""
        return np.array([len(self.blobs[view])])

    def frames(self, view: str, video: int, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns decoded frames: uint8 [T, H, W, C]; the one video is number 0."""
        stride = self.params[view].get("stride", 1)
        return read_strided(
            np.asarray(frames), stride, len(self.blobs[view]), partial(self._decoded, view)
        )

    def _decoded(self, view: str, frames: np.ndarray) -> list[np.ndarray]:
        codec = self.params[view]["codec"]
        return [get_view(view).decode(self.blobs[view][t], codec) for t in frames]


def make_derivers(gallery: Gallery, weights: Mapping[str, str], device: str) -> dict[str, Deriver]:
    """Makes the derivers of the gallery's views; as :func:`derivers_of`."""
    views = [subject.view for subject in gallery.subjects]
    return derivers_of(views, gallery.reader.views, weights, device)


def derivers_of(
    views: Sequence[str],
    params: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, str],
    device: str,
) -> dict[str, Deriver]:
    """Makes the derivers of some views, with the settings that are recorded with stored frames.

    Args:
        params: {view: the parameters that a pack records}.
        weights: {view: file of its network's weights}; others are searched in torch's cache.

    Returns:
        {view: deriver} of the views that extract-view made.

    Raises:
        VidsslError: weights are missing, or are not those that the frames were made with.
    """
    if unused := weights.keys() - set(views):
        raise UsageError(f"no {min(unused)} is compared, and --weights {min(unused)}=… is given")
    derivers = {}
    for view in views:
        recorded = params[view].get("derivation")
        if recorded is not None:
            deriver, config = recall_deriver(view, recorded, weights.get(view, ""), device)
            derivers[view] = deriver(config, usable_device(deriver, device))
    return derivers


def derive_like_gallery(
    source: Source,
    gallery: Gallery,
    derivers: Mapping[str, Deriver],
    weights: Mapping[str, str],
    sheet: bool,
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> QueryFrames:
    """Decodes a video file and encodes its views as those of the gallery were.

    Args:
        sheet: also encodes rgb, for the contact sheet.
        derivers, weights, bounds: as of :func:`derive_views`.

    Raises:
        VidsslError: as :func:`derive_views`.
    """
    views = {subject.view for subject in gallery.subjects} | ({"rgb"} if sheet else set())
    return derive_views(source, sorted(views), gallery.reader.views, derivers, weights, bounds)


def derive_views(
    source: Source,
    views: Sequence[str],
    params: Mapping[str, Mapping[str, Any]],
    derivers: Mapping[str, Deriver],
    weights: Mapping[str, str],
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> QueryFrames:
    """Decodes a video file and encodes its views as the parameters of a pack say.

    Args:
        params: {view: the parameters that a pack records}.
        derivers: what :func:`derivers_of` returns.
        weights: {view: file}, of which flow's is used if its method is a network.
        bounds: of the video.

    Raises:
        VidsslError: it cannot be decoded, or a view cannot be derived.
    """
    blobs: dict[str, Sequence[bytes]] = {}
    fps = 0.0
    for view in views:
        if view == "rgb":
            result = pack_video(source, params[view], bounds=bounds)
        elif view == "flow":
            weight = weights.get(view, "")
            result = extract_video_flow(source, params[view], weights=weight, bounds=bounds)
        elif view in derivers:
            result = derive_video_view(source, view, derivers[view], params[view], bounds)
        else:
            raise VidsslError(f"a video cannot be shown as {view}: the pack does not say how")
        assert result.record is not None
        blobs |= result.blobs
        fps = result.record.fps
    return QueryFrames(blobs, params, fps)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Turns OpenCV's threads off, as extraction does: DIS flow depends on their number."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
