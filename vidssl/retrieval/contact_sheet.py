"""Draws a contact sheet: a query on the left, its nearest neighbours on the right.

All pictures are RGB uint8 [H, W, 3] until the file is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.files import atomic_write
from vidssl.retrieval.text_drawing import (
    BOLD,
    MINUS,
    SEMIBOLD,
    Colour,
    draw_text,
    fit,
    fit_apart,
    text_width,
)

GROUND: Colour = (19, 21, 26)
PANEL: Colour = (31, 34, 42)
HEAD_PANEL: Colour = (38, 42, 53)
BRIGHT: Colour = (240, 242, 246)
DIM: Colour = (150, 157, 170)
ACCENT: Colour = (120, 170, 255)
SAME: Colour = (94, 201, 134)
OTHER: Colour = (92, 98, 112)

MARGIN, GAP, PAD, CORNER = 36, 20, 16, 12
TILE_HEIGHT = 132  # of a frame in a neighbour's strip
HEAD_WIDTH = 320  # of a frame of the query
WIDEST = 2.2  # width over height of a tile, at most
BAR_WIDTH = 120
LEAST_CARD = 420
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Card:
    """One video of the sheet.

    Attributes:
        frames: over time, all of one size.
        name: a path; of a neighbour's, enough is shown to distinguish it from the others.
        detail: a short remark, such as a time range.
        rank, similarity: None for the query.
    """

    frames: list[np.ndarray]
    name: str
    label: str | None = None
    detail: str = ""
    rank: int | None = None
    similarity: float | None = None


def check_sheet(path: Path) -> None:
    """Checks that a sheet can be written to this path; called before any work.

    Raises:
        VidsslError: the suffix is no picture's, the folder does not exist, or the path is a folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a contact sheet cannot be drawn into {path}: name it .png or .jpg")
    if not path.parent.is_dir():
        raise VidsslError(f"there is no folder {path.parent} to draw {path.name} into")
    if path.is_dir():
        raise VidsslError(f"{path} is a folder: name a picture to draw")


def draw_sheet(path: Path, query: Card, neighbours: Sequence[Card], footer: str = "") -> None:
    """Draws the sheet into a PNG or JPEG file.

    Raises:
        VidsslError: as :func:`check_sheet`, or a full disk.
    """
    check_sheet(path)
    picture = cv2.cvtColor(render_sheet(query, neighbours, footer), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(path.suffix.lower(), picture)
    atomic_write(path, data.tobytes())


def render_sheet(query: Card, neighbours: Sequence[Card], footer: str = "") -> np.ndarray:
    """Returns the sheet as a picture, RGB uint8 [H, W, 3]."""
    head = _head(query)
    columns = 1 if len(neighbours) <= 3 else 2
    strips = [_strip(card.frames) for card in neighbours]
    width = max([LEAST_CARD, *(strip.shape[1] for strip in strips)])
    widest = max((text_width(card.detail, 15) for card in neighbours), default=0)
    names = fit_apart([card.name for card in neighbours], width - widest - 24, 16)
    cards = [
        _card(card, name, strip, width, query.label)
        for card, name, strip in zip(neighbours, names, strips, strict=True)
    ]
    grid = _grid(cards, columns)
    height = max(head.shape[0], grid.shape[0])
    width = head.shape[1] + GAP + grid.shape[1]
    foot = 34 if footer else 0
    sheet = _filled(height + 2 * MARGIN + foot, width + 2 * MARGIN, GROUND)
    _paste(sheet, head, MARGIN, MARGIN)
    _paste(sheet, grid, MARGIN + head.shape[1] + GAP, MARGIN)
    if footer:
        line = fit(footer, width, 15)
        draw_text(sheet, line, (MARGIN, sheet.shape[0] - MARGIN + 12), 15, DIM)
    return sheet


# ── parts of the sheet ───────────────────────────────────────────────────────────────────────


def _head(query: Card) -> np.ndarray:
    """Draws the query: its frames over time, one below the other."""
    tiles = [_rounded(_to_width(frame, HEAD_WIDTH)) for frame in query.frames]
    lines = 72 + (38 if query.label else 0)
    height = PAD + lines + sum(tile.shape[0] + 10 for tile in tiles) - 10 + PAD
    panel = _panel(height, HEAD_WIDTH + 2 * PAD, HEAD_PANEL)
    draw_text(panel, "QUERY", (PAD, PAD + 16), 16, ACCENT, BOLD)
    right = text_width(query.detail, 15)
    draw_text(panel, query.detail, (PAD + HEAD_WIDTH - right, PAD + 16), 15, DIM)
    name = fit(query.name, HEAD_WIDTH, 20, SEMIBOLD)
    draw_text(panel, name, (PAD, PAD + 50), 20, BRIGHT, SEMIBOLD)
    y = PAD + 72
    if query.label:
        _chip(panel, query.label, PAD, y - 4, ACCENT)
        y += 38
    for tile in tiles:
        _paste(panel, tile, PAD, y)
        y += tile.shape[0] + 10
    return panel


def _strip(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Draws a neighbour's frames side by side."""
    tiles = [_to_height(frame, TILE_HEIGHT) for frame in frames]
    return _rounded(np.hstack([t for tile in tiles for t in (tile, _bar())][:-1]))


def _card(card: Card, name: str, strip: np.ndarray, width: int, wanted: str | None) -> np.ndarray:
    """Draws a neighbour: its frames, and below them rank, similarity, label, name and time."""
    panel = _panel(PAD + TILE_HEIGHT + 76 + PAD, width + 2 * PAD, PANEL)
    _paste(panel, strip, PAD, PAD)
    y = PAD + TILE_HEIGHT + 34
    x = PAD
    if card.rank is not None:
        draw_text(panel, str(card.rank), (x, y), 28, BRIGHT, BOLD)
        x += max(text_width(str(card.rank), 28, BOLD), 18) + 16
    if card.similarity is not None:
        x = _similarity(panel, card.similarity, x, y)
    if card.label:
        same = wanted is not None and card.label == wanted
        colour = SAME if same else OTHER if wanted is not None else ACCENT
        space = width + PAD - x - 14
        label = fit(card.label, space - 24, 16, SEMIBOLD)
        chip = text_width(label, 16, SEMIBOLD) + 24
        _chip(panel, label, PAD + width - chip, y - 24, colour)
    y += 34
    right = text_width(card.detail, 15)
    draw_text(panel, card.detail, (PAD + width - right, y), 15, DIM)
    draw_text(panel, name, (PAD, y), 16, DIM)
    return panel


def _similarity(panel: np.ndarray, value: float, x: int, y: int) -> int:
    """Draws the similarity with a small bar from 0 to 1; returns the x at which it ends."""
    text = f"{value:.3f}".replace("-", MINUS)
    draw_text(panel, text, (x, y - 2), 20, BRIGHT, SEMIBOLD)
    x += max(text_width(text, 20, SEMIBOLD), text_width("0.000", 20, SEMIBOLD)) + 14
    cv2.line(panel, (x, y - 9), (x + BAR_WIDTH, y - 9), OTHER, 4, cv2.LINE_AA)
    filled = round(BAR_WIDTH * min(max(value, 0.0), 1.0))
    if filled:
        cv2.line(panel, (x, y - 9), (x + filled, y - 9), ACCENT, 4, cv2.LINE_AA)
    return x + BAR_WIDTH


def _grid(cards: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arranges cards row by row, so that ranks run from left to right."""
    if not cards:
        return _filled(1, LEAST_CARD, GROUND)
    width = max(card.shape[1] for card in cards)
    height = cards[0].shape[0]
    rows = -(-len(cards) // columns)
    grid = _filled(rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, GROUND)
    for place, card in enumerate(cards):
        row, column = divmod(place, columns)
        _paste(grid, card, column * (width + GAP), row * (height + GAP))
    return grid


# ── drawing ──────────────────────────────────────────────────────────────────────────────────


def _filled(height: int, width: int, colour: Colour) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def _paste(image: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    image[y : y + part.shape[0], x : x + part.shape[1]] = part


def _bar() -> np.ndarray:
    return _filled(TILE_HEIGHT, 4, PANEL)


def _panel(height: int, width: int, colour: Colour) -> np.ndarray:
    return _rounded(_filled(height, width, colour), GROUND)


def _rounded(image: np.ndarray, outside: Colour = PANEL) -> np.ndarray:
    """Rounds a picture's corners, anti-aliased."""
    height, width = image.shape[:2]
    scale = 4
    mask = np.zeros((height * scale, width * scale), np.uint8)
    r = CORNER * scale // (1 if outside == GROUND else 2)
    right, bottom = width * scale - 1, height * scale - 1
    cv2.rectangle(mask, (r, 0), (right - r, bottom), 255, -1)
    cv2.rectangle(mask, (0, r), (right, bottom - r), 255, -1)
    for x in (r, right - r):
        for y in (r, bottom - r):
            cv2.circle(mask, (x, y), r, 255, -1)
    share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)[..., None] / 255
    return np.rint(image * share + np.array(outside) * (1 - share)).astype(np.uint8)


def _chip(image: np.ndarray, text: str, x: int, y: int, colour: Colour) -> None:
    """Draws a label in a small rounded box."""
    width = text_width(text, 16, SEMIBOLD) + 24
    chip = _filled(30, width, colour)
    draw_text(chip, text, (12, 21), 16, GROUND if colour != OTHER else BRIGHT, SEMIBOLD)
    under = tuple(int(c) for c in image[min(y + 15, image.shape[0] - 1), max(x - 2, 0)])
    _paste(image, _rounded(chip, under), x, y)  # type: ignore[arg-type]


def _to_height(frame: np.ndarray, height: int) -> np.ndarray:
    """Resizes a frame to a height; a very wide frame is cropped at its sides."""
    wide = frame.shape[1] / frame.shape[0]
    if wide > WIDEST:
        kept = round(frame.shape[0] * WIDEST)
        left = (frame.shape[1] - kept) // 2
        frame = frame[:, left : left + kept]
    return _resize(frame, max(1, round(height * frame.shape[1] / frame.shape[0])), height)


def _to_width(frame: np.ndarray, width: int) -> np.ndarray:
    """Resizes a frame to a width; a high frame is cropped above and below."""
    if frame.shape[0] / frame.shape[1] > 1.2:
        kept = round(frame.shape[1] * 1.2)
        top = (frame.shape[0] - kept) // 2
        frame = frame[top : top + kept]
    return _resize(frame, width, max(1, round(width * frame.shape[0] / frame.shape[1])))


def _resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    method = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(frame, (width, height), interpolation=method)
