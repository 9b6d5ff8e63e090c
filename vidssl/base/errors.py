"""Errors for the user: each has one clear sentence and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidsslError(Exception):
    """An error that the user can act on. Its text is the whole message: one sentence."""

    exit_code = 1


class UsageError(VidsslError):
    """A wrong command line: an unknown name, or a value that an option cannot have."""

    exit_code = 2


class MissingInput(VidsslError):
    """The workspace lacks an input of a stage; the text names the command that makes it."""


class Remark(UserWarning):
    """A warning that is meant for the user: it is shown as one line, and the work goes on."""


class SlowerWay(Remark):
    """A warning: a fast way does not work on this machine, and a slower one is used."""


class Interrupted(VidsslError):
    """A signal ended the work; what was done is saved.

    Args:
        signal_number: 2 (Ctrl-C) means exit code 130, 15 (SIGTERM) 143, 10 (SIGUSR1) 138.
    """

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def require(name: str, value: object, holds: bool, what: str) -> None:
    """Checks a setting.

    Args:
        holds: whether the value is allowed.
        what: the allowed values, such as "at least 1".

    Raises:
        UsageError: the value is not allowed.
    """
    if not holds:
        raise UsageError(f"{name} must be {what}, not {value}")


def nearest_name(wrong: str, names: Iterable[str]) -> str:
    """Returns ``" (did you mean X?)"`` for the most similar of `names`, or an empty text."""
    close = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
