"""Derived views of one video: decodes it once, runs the deriver and encodes what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from vidssl.views.choose_deriver import find_derivers
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
    return derive_video_views(source, deriver, {view: params}, bounds)


def derive_video_views(
    source: Source,
    deriver: Deriver,
    params: Mapping[str, Mapping[str, Any]],
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Decodes one video and encodes one view of it, or several that are derived in one pass.

    Args:
        params: {view: what :func:`vidssl.stages.extract_view.view_params` returns}; of several
            views stride and size are the same.

    Raises:
        UnusableVideo, UnreadableVideo: as :func:`derive_video_view`.
    """
    views = list(params)
    stride, size = int(params[views[0]]["stride"]), params[views[0]]["stored_size"]
    video = DecodedVideo(source, bounds)
    stored: dict[str, list[bytes]] = {view: [] for view in views}
    for made in _derived(deriver, views, video, stride, size):
        for view, frame in made.items():
            small = _at_stored_size(frame, size)
            stored[view].append(get_view(view).encode(small, params[view]["codec"]))
    video.read_to_end()
    blobs = {view: _with_gaps(video, view, stored[view], stride) for view in views}
    return VideoResult(video.record(), blobs)


def _derived(
    deriver: Deriver, views: Sequence[str], video: DecodedVideo, stride: int, size: int | None
) -> Iterator[Mapping[str, np.ndarray]]:
    if len(views) > 1:
        yield from deriver.derive_together(views, video, stride, size)
        return
    for frame in deriver.derive(video, stride, size):
        yield {views[0]: frame}


def _with_gaps(video: DecodedVideo, view: str, stored: list[bytes], stride: int) -> list[bytes]:
    """Returns a blob per frame of the view, empty where the frame is not derived.

    Raises:
        UnusableVideo: the video is too short, or there are not as many blobs as its frames need.
    """
    count = video.count - get_view(view).lag
    if count < 1:
        raise UnusableVideo(f"it has {counted(video.count, 'frame')}, too few for {view}")
    wanted = (count - 1) // stride + 1
    if len(stored) != wanted:
        raise UnusableVideo(
            f"{view} gave {len(stored)} frames for {video.count} of video at a stride of "
            f"{stride}, and not {wanted}"
        )
    return [stored[i // stride] if stored_frame(i, stride) else b"" for i in range(count)]


def derive_in_worker(
    source: Source,
    settings: Settings,
    params: Mapping[str, Mapping[str, Any]],
    model: str | None,
    device: str,
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Does what :func:`derive_video_views` does, with a deriver that is made once per process.

    Settings travel to workers as plain data, because a class of a user's own cannot be pickled.

    Args:
        model: the network; None for a view that has no choice of them.
    """
    deriver = _deriver(tuple(params), model, settings, device)
    return derive_video_views(source, deriver, params, bounds)


@lru_cache(maxsize=1)
def _deriver(views: tuple[str, ...], model: str | None, settings: Settings, device: str) -> Deriver:
    deriver = find_derivers(views, model, device)[0]
    return deriver(deriver.Config(**dict(settings)), device)


def _at_stored_size(frame: np.ndarray, size: int | None) -> np.ndarray:
    height, width = frame.shape[:2]
    return resize(frame, short_side(width, height, size), cv2.INTER_AREA)
