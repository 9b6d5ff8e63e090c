"""Aligns two videos softly in time: which moments of one look like which of the other.

As on the slides of CoCon (Rai et al. 2021): the similarity of all pairs of windows as a picture,
and both film strips, in which the phases of one action are framed in one colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidssl.report.embedded_runs import EmbeddedRun, Moment
from vidssl.report.film_strips import FilmCutter
from vidssl.report.picture_data import jpeg_uri, to_width

PHASES, WIDTH, MOST_FRAMES = 4, 96, 12


@dataclass(frozen=True)
class AlignedFrame:
    """The middle frame of one window.

    Attributes:
        phase: which of the phases it is of, from 0.
    """

    picture: str
    phase: int
    seconds: str


@dataclass(frozen=True)
class Alignment:
    """Two videos.

    Attributes:
        cells: cosine of each window of the first video (row) and of the second (column).
        shades: the same from 0 (least alike) to 100.
    """

    run: str
    names: tuple[str, str]
    first: list[AlignedFrame]
    second: list[AlignedFrame]
    cells: list[list[float]]
    shades: list[list[int]]


def align(run: EmbeddedRun, a: str, b: str, cutter: FilmCutter) -> Alignment:
    """Aligns two videos by one run's features.

    The first is cut into phases of equal length; a moment of the second is of the phase of the
    moment of the first that it is most like.
    """
    cosines = run.similarity(a, b)
    rows, columns = (_spread(count) for count in cosines.shape)
    cosines = cosines[np.ix_(rows, columns)]
    phase_of_row = [row * PHASES // len(rows) for row in range(len(rows))]
    phase_of_column = [phase_of_row[int(row)] for row in cosines.argmax(0)]
    low, high = float(cosines.min()), float(cosines.max())
    shades = np.rint(100 * (cosines - low) / max(high - low, 1e-9)).astype(int)
    of_a, of_b = run.moments(a), run.moments(b)
    return Alignment(
        run.name,
        (_name(cutter, a), _name(cutter, b)),
        _frames(cutter, a, [of_a[row] for row in rows], phase_of_row),
        _frames(cutter, b, [of_b[column] for column in columns], phase_of_column),
        [[round(float(value), 3) for value in row] for row in cosines],
        shades.tolist(),
    )


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).astype(int))


def _frames(
    cutter: FilmCutter, video: str, moments: list[Moment], phases: list[int]
) -> list[AlignedFrame]:
    row = cutter.reader.find(video)
    assert row is not None
    fps = cutter.reader.record(row).fps
    found = []
    for moment, phase in zip(moments, phases, strict=True):
        middle = max(0, (moment.first + moment.last) // 2)
        picture = cutter.pictures(video, cutter.main, Moment(middle, middle), 1)[0]
        at = cutter.reader.first_frame(row) + middle
        when = f"{at / fps:.1f} s" if fps > 0 else f"frame {at}"
        found.append(AlignedFrame(jpeg_uri(to_width(picture, WIDTH)), phase, when))
    return found


def _name(cutter: FilmCutter, video: str) -> str:
    row = cutter.reader.find(video)
    assert row is not None
    return cutter.reader.record(row).path
