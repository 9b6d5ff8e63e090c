"""Finds the frames that a frame's motion vectors may refer to, and how far away they are.

FFmpeg says which of two lists of frames a vector refers to, and not which frame of the list. Those
of the first list are mostly shown earlier, those of the second later. All were decoded before and
are marked as references. Where all of these are on one side, as in low-delay streams, both lists
are. Most codecs have one frame a list, the nearest; H.264 has several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from vidssl.dataset.coded_frames import CodedFrame

DEEPEST = 16  # frames that H.264 may decode before one that is shown earlier
MOST = 3  # frames of a list that are considered: what encoders use by default


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """A frame, and how far from it those are that its vectors may refer to.

    Attributes:
        first, second: frames to those of its two lists, the nearest first; below 0 for frames
            shown earlier. Never empty.
        spanned: a later frame whose vectors lead from behind this one to before it, and the
            distance that they span, below 0; None where there is none.
    """

    frame: CodedFrame
    first: Sequence[int]
    second: Sequence[int]
    spanned: tuple[CodedFrame, int] | None = None


def placed_frames(frames: Iterable[CodedFrame]) -> Iterator[PlacedFrame]:
    """Yields frames with the distances to those they may refer to; looks ahead where needed."""
    before: deque[CodedFrame] = deque(maxlen=2 * DEEPEST)
    ahead: deque[CodedFrame] = deque()
    for frame in frames:
        ahead.append(frame)
        while ahead and (_is_enough(ahead) or len(ahead) > DEEPEST):
            yield _place(before, ahead)
            before.append(ahead.popleft())
    while ahead:
        yield _place(before, ahead)
        before.append(ahead.popleft())


def _is_enough(ahead: Sequence[CodedFrame]) -> bool:
    return ahead[0].kind != "B" or bool(_later(ahead))


def _place(before: Sequence[CodedFrame], ahead: Sequence[CodedFrame]) -> PlacedFrame:
    frame = ahead[0]
    past = _earlier(reversed(before), frame)
    future = _later(ahead) if frame.kind == "B" else []
    spanned = None
    if future:
        follower = ahead[future[0]]
        between = [ahead[n] for n in range(future[0] - 1, -1, -1)]
        own = _earlier(chain(between, reversed(before)), follower)
        if own and -own[0] > future[0]:
            spanned = follower, own[0]
    return PlacedFrame(frame, past or future or [-1], future or past or [-1], spanned)


def _earlier(backward: Iterable[CodedFrame], frame: CodedFrame) -> list[int]:
    """Returns the distances to the nearest frames that it may refer to, of those shown before it.

    Nothing refers to what is before a frame that is coded by itself.
    """
    found = []
    for distance, other in enumerate(backward, 1):
        if _may_refer(frame, other):
            found.append(-distance)
        if len(found) == _most(frame) or other.kind == "I":
            break
    return found


def _later(ahead: Sequence[CodedFrame]) -> list[int]:
    """Returns the distance from the first of these to the nearest that it may refer to."""
    for distance, other in enumerate(ahead):
        if distance and _may_refer(ahead[0], other):
            return [distance]
    return []


def _most(frame: CodedFrame) -> int:
    return MOST if frame.luma is not None else 1


def _may_refer(frame: CodedFrame, other: CodedFrame) -> bool:
    known = frame.order is not None and other.order is not None
    return other.reference and (not known or other.order < frame.order)  # type: ignore[operator]
