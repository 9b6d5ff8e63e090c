"""What a pack holds of one video: its RGB frames, encoded, and copies of its derived views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2

from vidssl.base.text import counted
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.extraction.decoded_video import DecodedVideo, UnusableVideo
from vidssl.extraction.derived_views import DerivedView
from vidssl.extraction.process_pool import VideoResult
from vidssl.shards import ShardReader
from vidssl.views import get_view
from vidssl.views.resize import short_side


def pack_video(
    source: Source,
    rgb: Mapping[str, Any],
    derived: Mapping[str, DerivedView] | None = None,
    bounds: VideoBounds = DEFAULT_BOUNDS,
) -> VideoResult:
    """Encodes one video's RGB frames and copies the blobs of its derived views.

    Workers call it, so it can be pickled.

    Args:
        rgb: what :func:`vidssl.stages.pack.rgb_params` returns.
        derived: artifacts to copy from, by view.

    Raises:
        UnusableVideo: a derived view lacks the video, or has another number of frames.
        UnreadableVideo: nothing can be decoded, or a bound is exceeded.
    """
    derived = derived or {}
    for name, artifact in derived.items():
        if artifact.reader.find(source.id) is None:
            raise UnusableVideo(f"no {name} for it: {artifact.why_without(source.id, name)}")
    video, view = DecodedVideo(source, bounds), get_view("rgb")
    frames = []
    for frame in video:
        stored = short_side(video.width, video.height, rgb["stored_size"])
        if stored != (video.width, video.height):
            frame = cv2.resize(frame, stored, interpolation=cv2.INTER_AREA)
        frames.append(view.encode(frame, rgb["codec"]))
    blobs = {view.name: frames}
    for name, artifact in derived.items():
        blobs[name] = _copy_blobs(artifact.reader, source, name, video.count)
    return VideoResult(video.record(), blobs)


def _copy_blobs(reader: ShardReader, source: Source, name: str, frames: int) -> list[bytes]:
    number = reader.find(source.id)
    assert number is not None
    stored = int(reader.frame_count(name)[number])
    view = get_view(name)
    if frames - view.lag != stored:
        raise UnusableVideo(
            f"it has {counted(frames, 'frame')}, and its {name} {stored}: "
            f"run vidssl {view.command} again with --new"
        )
    return reader.read(name, number, range(stored))
