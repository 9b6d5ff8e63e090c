"""Draws text on pictures, anti-aliased, and shortens it to a given width.

OpenCV 5 has a variable Unicode font. OpenCV 4 has only Hershey's ASCII letters, so text is first
converted to ASCII there (ü becomes u, and a letter without an ASCII form an underscore).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from os.path import commonprefix
from typing import Any

import cv2
import numpy as np

Colour = tuple[int, int, int]  # red, green, blue

REGULAR, SEMIBOLD, BOLD = 400, 600, 750
ELLIPSIS = "…"
CUT = f"{ELLIPSIS}/"  # in place of folders that are left out
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
PLAIN = {DASH: "-", "—": "-", MINUS: "-", ELLIPSIS: "..", "·": "-", "ß": "ss"}
_HERSHEY = cv2.FONT_HERSHEY_DUPLEX
_HERSHEY_HEIGHT = 30.0  # pixels of a line at scale 1


def text_width(text: str, size: int, weight: int = REGULAR) -> int:
    """Returns the width of a line of text in pixels."""
    face = _unicode_face()
    if face is None:
        return int(cv2.getTextSize(to_ascii(text), _HERSHEY, size / _HERSHEY_HEIGHT, 1)[0][0])
    left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), face, size, weight)
    return int(left + width)


def draw_text(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: int,
    colour: Colour,
    weight: int = REGULAR,
) -> None:
    """Draws one line of text into an RGB picture; `at` is the left end of its baseline."""
    face = _unicode_face()
    if face is not None:
        cv2.putText(image, text, at, colour, face, size, weight)
        return
    thickness = 2 if weight >= BOLD else 1
    scale = size / _HERSHEY_HEIGHT
    cv2.putText(image, to_ascii(text), at, _HERSHEY, scale, colour, thickness, cv2.LINE_AA)


def fit(text: str, width: int, size: int, weight: int = REGULAR) -> str:
    """Shortens a line in its middle until it fits; the ends of names differ most often."""
    if text_width(text, size, weight) <= width:
        return text
    low, high = 0, len(text)  # most characters kept that still fit
    while low < high:
        kept = (low + high + 1) // 2
        if text_width(_without_middle(text, kept), size, weight) <= width:
            low = kept
        else:
            high = kept - 1
    return _without_middle(text, low)


def fit_apart(paths: Sequence[str], width: int, size: int) -> list[str]:
    """Shortens paths in their middle, as :func:`fit`, but keeps them distinct.

    If several would look the same, the folders that they have in common are left out.
    """
    shown = {path: fit(path, width, size) for path in paths}
    for look in set(shown.values()):
        alike = [path for path in shown if shown[path] == look]
        common = commonprefix(alike)  # noqa: RUF071 - letter by letter is meant
        folders = common.rfind("/") + 1
        rest = folders if folders > len(CUT) else len(common)
        if len(alike) > 1 and rest > len(CUT):
            tails = [f"{CUT if rest == folders else ELLIPSIS}{path[rest:]}" for path in alike]
            shown |= dict(zip(alike, fit_apart(tails, width, size), strict=True))
    return [shown[path] for path in paths]


def to_ascii(text: str) -> str:
    """Returns the nearest ASCII text: no accents, plain dashes, else an underscore."""
    text = "".join(PLAIN.get(letter, letter) for letter in text)
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "_" for c in letters)


def _without_middle(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    return text[:head] + ELLIPSIS + text[len(text) - (kept - head) :]


@lru_cache(maxsize=1)
def _unicode_face() -> Any:
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
