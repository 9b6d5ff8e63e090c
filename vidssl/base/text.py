"""Writes numbers with nouns in singular or plural; escapes what a terminal would obey."""

from __future__ import annotations

import re

# What changes a terminal or the order of letters, and shows nothing itself: C0 and C1 controls,
# marks and overrides of writing direction, separators of lines and paragraphs, the byte order
# mark, annotations, tags, and halves of surrogate pairs.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Returns a text as one line in which no character controls a terminal: each is escaped.

    Whatever comes from a file is shown by it: names, labels, reasons, errors.
    """
    return UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def plural(noun: str) -> str:
    """Returns the plural of a noun: videos, batches, classes."""
    return noun + ("es" if noun.endswith(("s", "x", "tch", "sh")) else "s")


def counted(number: float, noun: str) -> str:
    """Returns a number with its noun: 0 videos, 1 video, 2 videos."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def agree(number: float, one: str, several: str) -> str:
    """Returns `one` for the number 1, else `several`: the verb that fits the number."""
    return one if number == 1 else several
