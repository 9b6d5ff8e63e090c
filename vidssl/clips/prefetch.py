"""Prepares batches ahead of the training loop, on a CUDA device on a stream beside the loop's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch

from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import PendingBatch

BATCHES_AHEAD = 1  # steps whose batches are on a CUDA device, beside the one that trains
QUEUED_AHEAD = 2  # steps of work that the host may queue on a CUDA device

_Item = TypeVar("_Item")


def ahead(items: Iterable[_Item], count: int) -> Iterator[_Item]:
    """Yields the items, having fetched `count` more than were asked for."""
    rest = iter(items)
    fetched = deque(islice(rest, count))
    for item in rest:
        fetched.append(item)
        yield fetched.popleft()
    yield from fetched


def on_side_stream(
    batches: Iterable[Sequence[PendingBatch]],
    finish: Callable[[PendingBatch], ClipBatch],
    device: torch.device,
) -> Iterator[list[ClipBatch]]:
    """Yields each step's batches, which are finished on a CUDA stream beside the training loop's.

    The host waits for the device only when it is `QUEUED_AHEAD` steps ahead of it. Without that
    limit it would fill the device's memory with batches.
    """
    side = torch.cuda.Stream(device)

    def finished() -> Iterator[tuple[list[ClipBatch], torch.cuda.Event]]:
        for batch in batches:
            with torch.cuda.stream(side):
                made = [finish(micro_batch) for micro_batch in batch]
                done = side.record_event()
            yield made, done

    queued: deque[torch.cuda.Event] = deque()
    for made, done in ahead(finished(), BATCHES_AHEAD):
        loop = torch.cuda.current_stream(device)
        loop.wait_event(done)
        for batch in made:
            for tensor in (*batch.clips.values(), batch.source, batch.label, batch.index):
                # Else its memory could be given to another tensor while the loop reads it.
                tensor.record_stream(loop)
        yield made
        queued.append(loop.record_event())
        if len(queued) > QUEUED_AHEAD:
            queued.popleft().synchronize()
