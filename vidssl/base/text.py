"""Writes numbers with nouns and verbs in singular or plural."""

from __future__ import annotations


def plural(noun: str) -> str:
    """Returns the plural of a noun: videos, batches, classes."""
    return noun + ("es" if noun.endswith(("s", "x", "tch", "sh")) else "s")


def counted(number: float, noun: str) -> str:
    """Returns a number with its noun: 0 videos, 1 video, 2 videos."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def agree(number: float, one: str, several: str) -> str:
    """Returns `one` for the number 1, else `several`: the verb that fits the number."""
    return one if number == 1 else several
