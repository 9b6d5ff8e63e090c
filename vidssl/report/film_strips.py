"""Cuts film strips and short loops of moments out of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidssl.report.embedded_runs import Moment
from vidssl.report.picture_data import jpeg_uri, loop_uri, side_by_side, to_width
from vidssl.shards import ShardReader
from vidssl.views import get_view

STRIP_FRAMES, LOOP_FRAMES = 4, 8
FRAME_WIDTH, LOOP_WIDTH = 84, 128


@dataclass(frozen=True)
class Strip:
    """A moment of a video as pictures.

    Attributes:
        name: of the video, as the user's path.
        strip: a few frames side by side, each view below the other; a data URI.
        loop: the moment as an endless animation; a data URI.
        begin, end: where the moment lies in the video, from 0 to 1.
        seconds: the moment in words.
        width, height: of the strip, in pixels.
    """

    name: str
    label: str
    strip: str
    loop: str
    begin: float
    end: float
    seconds: str
    width: int
    height: int


class FilmCutter:
    """Makes strips of the videos of one pack; each moment is cut once.

    Args:
        labels: {id: label} of the videos that have one.
    """

    def __init__(self, reader: ShardReader, labels: dict[str, str]) -> None:
        self.reader, self.labels = reader, labels
        self.main = "rgb" if "rgb" in reader.views else next(iter(reader.views))
        self._cut: dict[tuple[str, int, int], Strip] = {}

    def whole(self, video: str) -> Moment:
        """Returns all frames of a video as one moment."""
        return Moment(0, self._count(video) - 1)

    def strip(self, video: str, moment: Moment) -> Strip:
        """Returns a moment's strip.

        Raises:
            VidsslError: the pack has no such video, or a frame is damaged.
        """
        key = video, moment.first, moment.last
        if key not in self._cut:
            self._cut[key] = self._make(video, moment)
        return self._cut[key]

    def pictures(self, video: str, view: str, moment: Moment, count: int) -> list[np.ndarray]:
        """Returns frames of a moment as pictures, RGB uint8 [H, W, 3]."""
        row = self._row(video)
        most = int(self.reader.frame_count(view)[row]) - 1
        wanted = np.linspace(max(moment.first, 0), moment.last, count).round().astype(int)
        frames = self.reader.frames(view, row, np.minimum(wanted, most))
        return [get_view(view).picture(frame) for frame in frames]

    def _make(self, video: str, moment: Moment) -> Strip:
        count = self._count(video)
        views = [self.main, *(view for view in self.reader.views if view != self.main)]
        rows = [self._row_of_pictures(video, view, moment) for view in views]
        sheet = np.vstack(rows)
        loop = self.pictures(video, self.main, moment, LOOP_FRAMES)
        row = self._row(video)
        record, skipped = self.reader.record(row), self.reader.first_frame(row)
        last = max(count - 1, 1)
        return Strip(
            name=record.path,
            label=self.labels.get(video, ""),
            strip=jpeg_uri(sheet),
            loop=loop_uri([to_width(picture, LOOP_WIDTH) for picture in loop]),
            begin=min(max(moment.first, 0) / last, 1.0),
            end=min(moment.last / last, 1.0),
            seconds=_in_words(moment, count, record.fps, skipped),
            width=sheet.shape[1],
            height=sheet.shape[0],
        )

    def _row_of_pictures(self, video: str, view: str, moment: Moment) -> np.ndarray:
        found = self.pictures(video, view, moment, STRIP_FRAMES)
        scaled = [to_width(picture, FRAME_WIDTH) for picture in found]
        return side_by_side(scaled)

    def _count(self, video: str) -> int:
        return int(self.reader.frame_count(self.main)[self._row(video)])

    def _row(self, video: str) -> int:
        row = self.reader.find(video)
        assert row is not None, video
        return row


def _in_words(moment: Moment, count: int, fps: float, skipped: int = 0) -> str:
    """Returns a moment's range; that of a segment which begins at frame `skipped` is its film's."""
    first, last = skipped + max(moment.first, 0), skipped + min(moment.last, count - 1)
    if fps <= 0:
        return f"frames {first} to {last}"
    return f"{first / fps:.1f} to {(last + 1) / fps:.1f} s"


def labels_in_words(
    ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]
) -> dict[str, str]:
    """Returns {id: name of its class} of the videos that have one."""
    pairs = zip(ids, labels, strict=True)
    return {video: classes[label] for video, label in pairs if label >= 0}
