"""Flow of many frame pairs at once, which is how a device is kept busy.

A method that works in batches takes pairs as they come, from any number of videos, and gives flows
as they get done, in whatever order: :meth:`BatchedFlow.flows`. Who calls it puts them back in
order by their tags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FramePair:
    """Two frames between which flow is wanted.

    Attributes:
        tag: handed back with the flow.
        before: uint8, grey [H, W] or RGB [H, W, 3], as the method asks for.
        after: of the same shape.
    """

    tag: Hashable
    before: np.ndarray
    after: np.ndarray


TaggedFlow = tuple[Hashable, np.ndarray]


class BatchedFlow(ABC):
    """A flow algorithm that works on many pairs at once."""

    @abstractmethod
    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        """Returns (tag, flow) of each pair, float32 [H, W, 2] in pixels, as they get done.

        Pairs are drawn only as there is room for them, so a source that decodes is held back by
        the flow and not the other way round. A flow depends on its own pair alone, never on what
        else was in the batch. Sizes may be mixed; none is changed.

        Args:
            pairs: ends when there are no more. None stands for "none is ready yet": the method
                goes on with what it has and asks again.
        """


def batches_of_one_size(pairs: Iterable[FramePair | None], most: int) -> Iterator[list[FramePair]]:
    """Returns up to `most` pairs at a time, all of one frame size.

    A batch is given when it is full; when no pair is ready, or none is left, what there is of
    each size is given as it is.
    """
    waiting: dict[tuple[int, ...], list[FramePair]] = {}
    for pair in pairs:
        if pair is None:
            yield from waiting.values()
            waiting.clear()
            continue
        batch = waiting.setdefault(pair.before.shape, [])
        batch.append(pair)
        if len(batch) == most:
            yield waiting.pop(pair.before.shape)
    yield from waiting.values()
