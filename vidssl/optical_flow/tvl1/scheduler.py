"""Schedules TV-L1 of many pairs on a GPU: a slot whose pair is done gets the next pair.

So the device never waits for the slowest pair of a batch, which can take a hundred times as long
as the fastest. The host is one launch ahead of what it knows: while the device works on a launch,
the host reads which pairs the launch before has finished, copies their flow and refills their
slots.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vidssl.base.errors import VidsslError
from vidssl.optical_flow.batched import BatchedFlow, FramePair, TaggedFlow
from vidssl.optical_flow.tvl1.pair_slots import (
    FlowCopy,
    PairSlots,
    StateSnapshot,
    bytes_per_tile,
    tiles_of,
)
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.solver import WorkCounter

# As many tiles as keep the largest GPUs busy: 256 pairs of 340 × 256.
TILES_AT_ONCE = 256 * 16 * 11
MOST_PAIRS = 1024
FEWEST_PAIRS = 8
SHARE_OF_MEMORY = 0.6  # of what is free, at most


class TritonTVL1(BatchedFlow):
    """Computes flow on a GPU by Triton kernels (on a CPU by Triton's interpreter, for tests).

    Args:
        pairs: on the device at once; None: as many as it needs and has memory for.
        options: of :class:`vidssl.optical_flow.tvl1.pair_slots.PairSlots`, such as `blocks`.

    Attributes:
        work: done so far.
    """

    def __init__(
        self,
        parameters: Parameters,
        device: torch.device,
        pairs: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.parameters, self.device, self.pairs = parameters, device, pairs
        self.options = dict(options or {})
        self.work = WorkCounter()
        self._groups: dict[int, _Group] = {}

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        queue = _Queue(pairs)
        while not queue.ended or any(group.busy for group in self._groups.values()):
            self._fill(queue)
            for group in self._groups.values():
                if group.busy:
                    group.advance()
                    yield from group.collect(self.work)

    def _fill(self, queue: _Queue) -> None:
        """Puts pairs into free slots; stops at the first pair that finds no slot."""
        touched = set()
        while (pair := queue.first()) is not None:
            group = self._group_of(pair)
            if not group.add(pair):
                break
            touched.add(group)
            queue.drop()
        for group in touched:
            group.send()

    def _group_of(self, pair: FramePair) -> _Group:
        """Returns the group for pictures of about this size: up to 1.4 times as many tiles."""
        height, width = pair.before.shape
        size = math.ceil(2 * math.log2(tiles_of(height, width)))
        if size not in self._groups:
            tiles = math.floor(2 ** (size / 2))
            slots = PairSlots(
                self.parameters, self._room(tiles), tiles, self.device, **self.options
            )
            self._groups[size] = _Group(slots)
        return self._groups[size]

    def _room(self, tiles: int) -> int:
        """Returns how many pairs of so many tiles are on the device at once.

        Raises:
            VidsslError: the device has no memory for a single one.
        """
        wanted = self.pairs
        if wanted is None:
            wanted = min(max(TILES_AT_ONCE // tiles, FEWEST_PAIRS), MOST_PAIRS)
        if self.device.type != "cuda":
            return wanted
        free, _ = torch.cuda.mem_get_info(self.device)
        fit = int(SHARE_OF_MEMORY * free / (tiles * bytes_per_tile(self.parameters.nscales)))
        if fit < 1:
            raise VidsslError(
                f"{self.device} has {free / 2**30:.1f} GiB free, too little for flow of frames "
                "this large: give a smaller --size"
            )
        return min(wanted, fit)


class _Queue:
    """The pairs to come; the first one can be looked at before it is taken."""

    def __init__(self, pairs: Iterable[FramePair | None]) -> None:
        self._pairs = iter(pairs)
        self._first: FramePair | None = None
        self.ended = False

    def first(self) -> FramePair | None:
        """Returns the next pair, or None when none is ready or none is left."""
        if self._first is None and not self.ended:
            try:
                self._first = next(self._pairs)
            except StopIteration:
                self.ended = True
        return self._first

    def drop(self) -> None:
        """Takes the first pair off the queue."""
        self._first = None


@dataclass(eq=False)
class _Group:
    """Pairs of about one size, and their slots.

    Attributes:
        tags: {slot: (tag, size, launch)} of the pairs that have a slot; the pair entered it before
            that launch.
        to_send: pairs that have a slot but are not on the device yet.
        snapshots: each with the number of the launch after which it was taken.
        copies: of finished flow, each with the tags of its pairs.
    """

    slots: PairSlots
    tags: dict[int, tuple[Hashable, tuple[int, int], int]] = field(default_factory=dict)
    to_send: list[tuple[int, FramePair]] = field(default_factory=list)
    snapshots: deque[tuple[int, StateSnapshot]] = field(default_factory=deque)
    copies: deque[tuple[list[Hashable], FlowCopy]] = field(default_factory=deque)
    launches: int = 0

    def __post_init__(self) -> None:
        self.free = list(reversed(range(self.slots.count)))

    @property
    def busy(self) -> bool:
        """Whether there is flow that is not finished or not copied yet."""
        return bool(self.tags or self.copies)

    def add(self, pair: FramePair) -> bool:
        """Assigns a free slot to a pair; returns whether there was one."""
        if not self.free:
            return False
        slot = self.free.pop()
        height, width = pair.before.shape
        self.tags[slot] = (pair.tag, (height, width), self.launches)
        self.to_send.append((slot, pair))
        return True

    def send(self) -> None:
        """Sends the pairs that were added, those of one size together."""
        by_size: dict[tuple[int, ...], list[tuple[int, FramePair]]] = {}
        for slot, pair in self.to_send:
            by_size.setdefault(pair.before.shape, []).append((slot, pair))
        for some in by_size.values():
            pictures = np.stack([np.stack([pair.before, pair.after]) for _, pair in some])
            self.slots.enter([slot for slot, _ in some], pictures)
        self.to_send = []

    def advance(self) -> None:
        """Launches the next blocks."""
        self.snapshots.append((self.launches, self.slots.advance()))
        self.launches += 1

    def collect(self, work: WorkCounter) -> Iterator[TaggedFlow]:
        """Yields the flows whose copies were begun before; begins to copy newly finished ones.

        It looks at the states after the launch before the latest one, so that the device has work
        meanwhile.
        """
        begun = list(self.copies)
        self.copies.clear()
        while len(self.snapshots) > 1:
            self._begin_copies(*self.snapshots.popleft(), work)
        for tags, copy in begun:
            yield from zip(tags, copy.wait(), strict=True)

    def _begin_copies(self, launch: int, snapshot: StateSnapshot, work: WorkCounter) -> None:
        by_size: dict[tuple[int, int], list[int]] = {}
        for slot in snapshot.done().tolist():
            # A slot may have been filled again after the launch that the snapshot shows.
            if slot in self.tags and self.tags[slot][2] <= launch:
                by_size.setdefault(self.tags[slot][1], []).append(slot)
        for size, some in by_size.items():
            slots = np.asarray(some)
            flows = self.slots.fetch(slots, snapshot.side(slots), size)
            self.copies.append(([self.tags.pop(slot)[0] for slot in some], flows))
            self.free.extend(some)
            work.pairs += len(some)
            work.pixel_iterations += int(snapshot.work(slots).sum())
