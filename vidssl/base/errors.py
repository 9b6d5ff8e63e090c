"""Errors that are meant for the user: each carries one clear sentence and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidsslError(Exception):
    """Something the user can act on. Its text is the whole message: one sentence."""

    exit_code = 1


class UsageError(VidsslError):
    """A command or an option that makes no sense as given."""

    exit_code = 2


class MissingInput(VidsslError):
    """The workspace lacks what a stage needs; the text names the command that makes it."""


class SlowerWay(UserWarning):
    """What is quick does not work on this machine; the same is done in a slower way."""


class Interrupted(VidsslError):
    """A signal ended the work after it was saved.

    Args:
        signal_number: 2 (Ctrl-C) gives exit code 130, 15 (SIGTERM) gives 143.
    """

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def require(name: str, value: object, holds: bool, what: str) -> None:
    """Raises a :class:`UsageError` that says what a setting must be, unless it holds."""
    if not holds:
        raise UsageError(f"{name} must be {what}, not {value}")


def nearest_name(wrong: str, names: Iterable[str]) -> str:
    """Returns ``" (did you mean X?)"`` for the closest of `names`, or an empty text."""
    close = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
