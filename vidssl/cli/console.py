"""The one way to the terminal: what a file says is shown, and obeyed by nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from vidssl.base.text import UNPRINTABLE, printable


class PlainConsole(Console):
    """Prints texts as they are: without markup, and with control characters escaped.

    So no name, label or error from a file can colour, move, hide or forge what is printed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Lets the program end as it does on every pipe whose reader is gone; rich would exit."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text, without markup and with control characters escaped."""
        return super().render_str(printable(text), **(options | {"markup": False, "emoji": False}))

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Renders anything; each text in it, such as a table's cell, comes here as well."""
        shown = escaped(renderable) if isinstance(renderable, Text) else renderable
        return super().render(shown, options)


def escaped(text: Text) -> Text:
    """Returns a styled text with its control characters escaped."""
    plain = text.plain
    if not UNPRINTABLE.search(plain):
        return text
    shown, at = text.blank_copy(), 0
    for found in UNPRINTABLE.finditer(plain):
        if found.start() > at:
            shown.append_text(text[at : found.start()])
        shown.append(printable(found[0]))
        at = found.end()
    return shown.append_text(text[at:]) if at < len(plain) else shown


class Unbroken:
    """A stream that never ends the work: once it cannot be written, what it gets is dropped.

    The reader of a pipe may be gone (`2>&1 | head -1`), a terminal closed, a disk full.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self.broken = stream, False

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Any, *values: str) -> None:
        if self.broken:
            return
        try:
            act(*values)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def progress_console() -> Console:
    """Returns a console on stderr for progress, notes and errors, which cannot end the work."""
    return PlainConsole(file=cast(IO[str], Unbroken(sys.stderr)))
