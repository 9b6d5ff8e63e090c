"""How long a run may take: what no time is left for is left out or stopped, and named."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OutOfTime(BaseException):
    """A piece of work took longer than it may; no Exception, so that nothing in it takes it up."""


class Budget:
    """Seconds that are shared by many pieces of work, one after another.

    Args:
        seconds: for all of them; infinite: nothing is left out or stopped, however long it takes.

    Attributes:
        cut: names of what was left out or stopped.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.cut: list[str] = []

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def allows(self, name: str, seconds: float) -> bool:
        """Whether there is time for a piece of work; else its name is kept."""
        if self.left >= seconds:
            return True
        self.cut.append(name)
        return False

    @contextmanager
    def limited(self, name: str, seconds: float = float("inf")) -> Iterator[None]:
        """Stops what is done within it after `seconds`, or when all time is up; keeps its name.

        For the main thread, and not within itself.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            raise OutOfTime

        if self.left == float("inf"):
            yield
            return
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(min(seconds, self.left), 0.01))
        try:
            yield
        except OutOfTime:
            self.cut.append(f"{name} (stopped)")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
