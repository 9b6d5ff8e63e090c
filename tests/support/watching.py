"""A Progress that notes what it is told, and may interrupt the work."""

from __future__ import annotations

from typing import Self


class Watching:
    """Notes of the last task how much there was in all, lay behind, and came.

    Args:
        stop_after: so many units; Ctrl-C is pressed when the next ones come.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.total: int | None = None
        self.behind = self.came = 0
        self.titles: list[str] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Self:
        self.titles.append(description)
        self.total, self.behind, self.came = total, done, 0
        return self

    def advance(self, n: int = 1, **figures: float | str) -> None:
        if self.stop_after is not None and n and self.came + n > self.stop_after:
            raise KeyboardInterrupt
        self.came += n

    def note(self, text: str) -> None:
        self.said.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...
