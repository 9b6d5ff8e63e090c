"""Numbers with their nouns, for people."""

from __future__ import annotations


def plural(noun: str) -> str:
    """Returns the plural: videos, batches, classes."""
    return noun + ("es" if noun.endswith(("s", "x", "tch", "sh")) else "s")


def counted(number: float, noun: str) -> str:
    """Returns a number with its noun: 1 video, 2 videos, 0 videos."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def agree(number: float, one: str, several: str) -> str:
    """Returns the verb that fits a number."""
    return one if number == 1 else several
