"""Bounds of one video: what a decoder may be made to do by a file that is damaged or hostile.

The defaults are far beyond real film. A video that exceeds one is left out, with a sentence that
names the bound and its option. Bounds are no part of a run's identity.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from threading import Event

from vidssl.base.errors import VidsslError, require


class UnreadableVideo(VidsslError):
    """A file of which no frame can be decoded; the text is the reason."""


class OverBound(UnreadableVideo):
    """A video that exceeds one of its bounds; the text names the bound and the option."""


@dataclass(frozen=True)
class VideoBounds:
    """What one video may have and take.

    Attributes:
        max_pixels: of a frame; film of 12K has 80 million.
        max_stall: seconds for which the decoder may give no new frame.
        max_frames: of the video; the default is four days of film.

    Raises:
        UsageError: a bound is not above 0.
    """

    max_pixels: int = 100_000_000
    max_stall: float = 60.0
    max_frames: int = 10_000_000

    def __post_init__(self) -> None:
        require("--max-pixels", self.max_pixels, self.max_pixels >= 1, "1 or more")
        stall = 0 < self.max_stall < 1e6  # else the clock of the system refuses it
        require("--max-stall", self.max_stall, stall, "above 0 and below a million seconds")
        require("--max-frames", self.max_frames, self.max_frames >= 1, "1 or more")

    def check_size(self, width: int, height: int) -> None:
        """Raises :class:`OverBound` if frames of this size have too many pixels."""
        if width * height > self.max_pixels:
            raise OverBound(
                f"a frame has {width}x{height} pixels, and --max-pixels allows {self.max_pixels}"
            )

    def size_refused(self) -> OverBound:
        """Returns the error for a size that the decoder refused without saying which."""
        return OverBound(
            f"a frame has more than the {self.max_pixels} pixels that --max-pixels allows, or a "
            "size that cannot be"
        )

    def check_count(self, frames: int) -> None:
        """Raises :class:`OverBound` if a video has so many frames."""
        if frames > self.max_frames:
            raise OverBound(f"it has more than the {self.max_frames} frames of --max-frames")


DEFAULT_BOUNDS = VideoBounds()
_MAY_BE_ENDED = Event()  # whether this process may be ended where a decoder hangs


class StallClock:
    """Counts the seconds since a decoder was asked for a frame.

    What runs in Python looks at the clock by itself (:meth:`check`). A decoder may also hang within
    one call; then, in a process that may be ended, the system ends the process by SIGALRM
    (:func:`end_this_process_where_it_stalls`).
    """

    def __init__(self, bounds: VideoBounds) -> None:
        self._most = bounds.max_stall
        self.start()

    def start(self) -> None:
        """Begins to count: a frame is asked for."""
        self._begin = time.monotonic()
        # Later than what Python does by itself, which has the better sentence.
        if _MAY_BE_ENDED.is_set():
            signal.setitimer(signal.ITIMER_REAL, 2 * self._most + 1)

    def stop(self) -> None:
        """Stops counting: the frame is there."""
        if _MAY_BE_ENDED.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """Raises :class:`OverBound` if it takes too long."""
        if time.monotonic() - self._begin > self._most:
            raise self.over()

    def over(self) -> OverBound:
        """Returns the error for a decoder that gives no new frame."""
        return OverBound(
            f"the decoder gave no new frame for {self._most:g} seconds, the bound of --max-stall"
        )


def end_this_process_where_it_stalls() -> None:
    """Lets a decoder that hangs within one call end this process; for processes that do videos."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _MAY_BE_ENDED.set()
