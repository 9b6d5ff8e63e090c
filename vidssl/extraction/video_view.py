"""A derived view of one video: decodes it, runs the view's deriver and encodes what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from vidssl.base.text import counted
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.extraction.decoded_video import DecodedVideo, UnusableVideo
from vidssl.extraction.process_pool import VideoResult
from vidssl.views import get_view
from vidssl.views.deriver import Deriver
from vidssl.views.frame_interpolation import stored_frame
from vidssl.views.resize import resize, short_side

Settings = tuple[tuple[str, Any], ...]  # (field, value) of a deriver's Config


def derive_video_view(
    source: Source,
    view: str,
    deriver: Deriver,
    params: Mapping[str, Any],
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Decodes one video and encodes a view of it.

    Args:
        view: its name.
        params: what :func:`vidssl.stages.extract_view.view_params` returns.

    Raises:
        UnusableVideo: it is too short for the view, or the deriver returned a wrong number of
            frames.
        UnreadableVideo: nothing can be decoded, or a bound is exceeded.
    """
    own = get_view(view)
    stride, size = int(params["stride"]), params["stored_size"]
    video = DecodedVideo(source, bounds)
    derived = deriver.derive(video, stride, size)
    stored = [own.encode(_at_stored_size(frame, size), params["codec"]) for frame in derived]
    video.read_to_end()
    count = video.count - own.lag
    if count < 1:
        raise UnusableVideo(f"it has {counted(video.count, 'frame')}, too few for {view}")
    wanted = (count - 1) // stride + 1
    if len(stored) != wanted:
        raise UnusableVideo(
            f"{view} gave {len(stored)} frames for {video.count} of video at a stride of "
            f"{stride}, and not {wanted}"
        )
    blobs = [stored[i // stride] if stored_frame(i, stride) else b"" for i in range(count)]
    return VideoResult(video.record(), {view: blobs})


def derive_in_worker(
    source: Source,
    view: str,
    settings: Settings,
    params: Mapping[str, Any],
    device: str,
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Does what :func:`derive_video_view` does, with a deriver that is made once per process.

    Settings travel to workers as plain data, because a class of a user's own cannot be pickled.
    """
    return derive_video_view(source, view, _deriver(view, settings, device), params, bounds)


@lru_cache(maxsize=1)
def _deriver(view: str, settings: Settings, device: str) -> Deriver:
    deriver = get_view(view).deriver()
    return deriver(deriver.Config(**dict(settings)), device)


def _at_stored_size(frame: np.ndarray, size: int | None) -> np.ndarray:
    height, width = frame.shape[:2]
    return resize(frame, short_side(width, height, size), cv2.INTER_AREA)
