"""The contact sheet of one query's answer: which frames of which videos go onto it.

A sheet by flow, pose or any other view shows it laid over the frames: what was compared is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidssl.base.text import counted
from vidssl.evaluation.features import FrameSource
from vidssl.evaluation.subjects import in_words
from vidssl.retrieval.answers import Neighbour, QueryAnswer
from vidssl.retrieval.contact_sheet import Card, draw_sheet
from vidssl.retrieval.gallery import Gallery
from vidssl.retrieval.overlay import laid_over
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
    """Draws a query beside its neighbours, each by the window that is most like the query.

    Args:
        label: of the query, where it is known.
        videos: the neighbours' numbers in the gallery.
    """
    head = _query_card(answer, label, query, gallery)
    cards = [
        _neighbour_card(neighbour, video, gallery)
        for neighbour, video in zip(answer.neighbours, videos, strict=True)
    ]
    streams = in_words(gallery.subjects)
    draw_sheet(
        path, head, cards, footer=f"{streams}   gallery of {counted(len(gallery.reader), 'video')}"
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
    last = min(neighbour.last_frame, int(gallery.reader.frame_count("rgb")[video]) - 1)
    shown = _spread(neighbour.first_frame, last, NEIGHBOUR_FRAMES)
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
    """Returns frames as filmed, with the views by which videos were compared laid over them."""
    views = [subject.stream for subject in gallery.subjects]
    laid = [_pictures(view, source, video, shown) for view in views if view != "rgb"]
    frames = source.frames("rgb", video, shown)
    return [laid_over(frame, [one[t] for one in laid]) for t, frame in enumerate(frames)]


def _pictures(view: str, source: FrameSource, video: int, shown: np.ndarray) -> list[np.ndarray]:
    last = int(source.frame_count(view)[video]) - 1  # a derived view may end earlier
    return [get_view(view).picture(f) for f in source.frames(view, video, shown.clip(max=last))]


def _spread(first: int, last: int, count: int) -> np.ndarray:
    """Returns `count` frame numbers from first to last, evenly."""
    return np.linspace(first, last, count).round().astype(int)


def _range(neighbour: Neighbour) -> str:
    if neighbour.begin is None or neighbour.end is None:
        return f"frames {neighbour.first_frame}{DASH}{neighbour.last_frame}"
    return f"{neighbour.begin:.1f}{DASH}{neighbour.end:.1f} s"
