"""Shows each view of some videos beside their RGB: flow as colours, pose and mask as drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidssl.report.film_strips import STRIP_FRAMES, FilmCutter
from vidssl.report.picture_data import jpeg_uri, side_by_side, to_width

MOST_VIDEOS, WIDTH, WHEEL = 4, 128, 96


@dataclass(frozen=True)
class ViewStrip:
    """Frames of one view."""

    view: str
    picture: str
    width: int
    height: int


@dataclass(frozen=True)
class ViewedVideo:
    """One video in all its views."""

    name: str
    label: str
    views: list[ViewStrip]


def viewed_videos(cutter: FilmCutter) -> list[ViewedVideo]:
    """Returns some videos of a pack, spread over its labels, in all views.

    Raises:
        VidsslError: a frame is damaged.
    """
    reader = cutter.reader
    ids = [reader.video_id(row) for row in range(len(reader))]
    by_label: dict[str, str] = {}
    for video in ids:
        by_label.setdefault(cutter.labels.get(video, ""), video)
    spread = [ids[v] for v in np.linspace(0, len(ids) - 1, MOST_VIDEOS).astype(int)]
    chosen = list(dict.fromkeys([*by_label.values(), *spread]))[:MOST_VIDEOS]
    return [_viewed(cutter, video) for video in chosen]


def _viewed(cutter: FilmCutter, video: str) -> ViewedVideo:
    found = []
    for view in sorted(cutter.reader.views, key=lambda name: name != cutter.main):
        pictures = cutter.pictures(video, view, cutter.whole(video), STRIP_FRAMES)
        sheet = side_by_side([to_width(picture, WIDTH) for picture in pictures])
        found.append(ViewStrip(view, jpeg_uri(sheet), sheet.shape[1], sheet.shape[0]))
    row = cutter.reader.find(video)
    assert row is not None
    name = cutter.reader.record(row).path
    return ViewedVideo(name, cutter.labels.get(video, ""), found)
