"""The interface of flow algorithms that work on many frame pairs at once, as GPUs need it.

Such an algorithm takes pairs from any number of videos, and returns flows in the order in which
they are finished: :meth:`BatchedFlow.flows`. The caller restores the order by the pairs' tags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FramePair:
    """Two frames between which flow is computed.

    Attributes:
        tag: returned with the flow.
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
        """Yields (tag, flow) of each pair when it is finished, float32 [H, W, 2] in pixels.

        Pairs are taken only when there is room for them, so decoded frames do not pile up. A flow
        depends on its own pair alone, never on the other pairs of its batch. Sizes may be mixed;
        frames are not resized.

        Args:
            pairs: may yield None when no pair is ready yet: the method then continues with the
                pairs it has, and asks again.
        """


def batches_of_one_size(pairs: Iterable[FramePair | None], most: int) -> Iterator[list[FramePair]]:
    """Yields batches of up to `most` pairs, each of one frame size.

    A batch is yielded when it is full. When no pair is ready (None), and at the end, all batches
    that have been begun are yielded.
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
