"""Draws the contact sheet of one query: its frames, and those of its nearest neighbours.

If videos were compared by flow, pose or another derived view, it is drawn over the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidssl.base.text import counted
from vidssl.evaluation.evaluated_encoders import describe_subjects
from vidssl.evaluation.features import FrameSource
from vidssl.retrieval.answers import Neighbour, QueryAnswer
from vidssl.retrieval.contact_sheet import Card, draw_sheet
from vidssl.retrieval.gallery import Gallery
from vidssl.retrieval.overlay import overlay_pictures
from vidssl.retrieval.query_video import QueryFrames
from vidssl.retrieval.text_drawing import DASH
from vidssl.views import get_view

NEIGHBOUR_FRAMES = 3
QUERY_FRAMES = 4


def draw_answer(
    answer: QueryAnswer,
    label: str | None,
    videos: Sequence[int],
    query: QueryFrames,
    gallery: Gallery,
    path: Path,
) -> None:
    """Draws a query beside its neighbours, each with frames of its window that is most similar.

    Args:
        label: of the query; None if it is unknown.
        videos: the neighbours' numbers in the gallery.
        query: the query's frames.
        path: of the picture that is written.
    """
    head = _query_card(answer, label, query, gallery)
    cards = [
        _neighbour_card(neighbour, video, gallery)
        for neighbour, video in zip(answer.neighbours, videos, strict=True)
    ]
    compared = describe_subjects(gallery.subjects)
    draw_sheet(
        path, head, cards, footer=f"{compared}   gallery of {counted(len(gallery.reader), 'video')}"
    )


def _query_card(
    answer: QueryAnswer, label: str | None, query: QueryFrames, gallery: Gallery
) -> Card:
    count = int(query.frame_count("rgb")[0])
    shown = _spread(0, count - 1, min(QUERY_FRAMES, count))
    length = f"{count / query.fps:.1f} s" if query.fps > 0 else counted(count, "frame")
    frames = _as_compared(query, 0, shown, gallery)
    return Card(frames, Path(answer.query).name, label, length)


def _neighbour_card(neighbour: Neighbour, video: int, gallery: Gallery) -> Card:
    skipped = gallery.reader.first_frame(video)
    most = int(gallery.reader.frame_count("rgb")[video]) - 1
    last = min(neighbour.last_frame - skipped, most)
    shown = _spread(neighbour.first_frame - skipped, last, NEIGHBOUR_FRAMES)
    return Card(
        frames=_as_compared(gallery.reader, video, shown, gallery),
        name=neighbour.video,
        label=neighbour.label,
        detail=_range(neighbour),
        rank=neighbour.rank,
        similarity=neighbour.similarity,
    )


def _as_compared(
    source: FrameSource, video: int, shown: np.ndarray, gallery: Gallery
) -> list[np.ndarray]:
    """Returns RGB frames with the derived views by which videos were compared drawn over them."""
    views = [subject.view for subject in gallery.subjects]
    pictures = [_pictures(view, source, video, shown) for view in views if view != "rgb"]
    frames = source.frames("rgb", video, shown)
    return [
        overlay_pictures(frame, [of_view[t] for of_view in pictures])
        for t, frame in enumerate(frames)
    ]


def _pictures(view: str, source: FrameSource, video: int, shown: np.ndarray) -> list[np.ndarray]:
    last = int(source.frame_count(view)[video]) - 1  # a derived view may end earlier
    return [get_view(view).picture(f) for f in source.frames(view, video, shown.clip(max=last))]


def _spread(first: int, last: int, count: int) -> np.ndarray:
    """Returns `count` frame numbers, evenly spaced from first to last."""
    return np.linspace(first, last, count).round().astype(int)


def _range(neighbour: Neighbour) -> str:
    if neighbour.begin is None or neighbour.end is None:
        return f"frames {neighbour.first_frame}{DASH}{neighbour.last_frame}"
    return f"{neighbour.begin:.1f}{DASH}{neighbour.end:.1f} s"
