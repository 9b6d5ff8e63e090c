"""Draws line charts as SVG; colours and fonts come from the page's styles.

Every text is escaped: names of runs are from users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 34
COLOURS = 8  # classes c0 to c7 of the page's styles; dashes tell the rest apart
MOST_POINTS = 400  # of one line


@dataclass(frozen=True)
class Line:
    """One run's line.

    Attributes:
        xs, ys: points; those that are not finite are left out.
        number: of the run, which chooses its colour.
    """

    name: str
    number: int
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A level that is drawn across, such as chance."""

    name: str
    y: float


def line_chart(
    title: str, x_name: str, lines: Sequence[Line], levels: Sequence[Level] = (), log: bool = False
) -> Markup:
    """Returns a chart as an SVG element.

    Args:
        log: the y axis is logarithmic; values that are not positive are left out.
    """
    lines = [_drawable(line, log) for line in lines]
    xs = [x for line in lines for x in line.xs]
    ys = [y for line in lines for y in line.ys] + [level.y for level in levels]
    x_low, x_high = _range(xs)
    y_low, y_high = _range([_scaled(y, log) for y in ys])

    def at_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        share = (_scaled(y, log) - y_low) / (y_high - y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    parts += _axes(x_low, x_high, y_low, y_high, x_name, log)
    for level in levels:
        y = at_y(level.y)
        parts.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="level-name" x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
            f"{escape(level.name)}</text>"
        )
    for line in lines:
        points = " ".join(
            f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in zip(line.xs, line.ys, strict=True)
        )
        style = f"line c{line.number % COLOURS}" + (" dashed" if line.number >= COLOURS else "")
        parts.append(
            f'<polyline class="{style}" data-run="{line.number}" points="{points}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return Markup("".join([*parts, "</svg>"]))


def _drawable(line: Line, log: bool) -> Line:
    points = [
        (x, y)
        for x, y in zip(line.xs, line.ys, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)
    ]
    step = math.ceil(len(points) / MOST_POINTS) or 1
    kept = points[::step] + (points[-1:] if (len(points) - 1) % step else [])
    return Line(line.name, line.number, [x for x, _ in kept], [y for _, y in kept])


def _scaled(y: float, log: bool) -> float:
    return math.log10(y) if log else y


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        return low - 0.5, high + 0.5
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _axes(
    x_low: float, x_high: float, y_low: float, y_high: float, x_name: str, log: bool
) -> list[str]:
    """Returns grid lines with their numbers, and the name of the x axis."""
    parts = []
    for value in ticks(y_low, y_high):
        y = HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        shown = 10**value if log else value
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{shown:.3g}</text>"
        )
    for value in ticks(x_low, x_high):
        x = LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_name)}</text>"
    )
    return parts


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Returns round numbers from low to high, about as many as wanted."""
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]
