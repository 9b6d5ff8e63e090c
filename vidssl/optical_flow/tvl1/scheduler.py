"""TV-L1 of a stream of pairs, many in flight: a slot whose pair is done takes the next one.

So the device never waits for the slowest pair of a batch, which can take a hundred times as long
as the quickest. The host is one launch ahead of what it knows: while the device works on one, it
reads what the launch before it finished, sends those flows home and fills their slots.
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
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.slots import (
    Flows,
    Slots,
    Snapshot,
    bytes_per_tile,
    tiles_of,
)
from vidssl.optical_flow.tvl1.solver import Work

# As many tiles as keep the largest GPUs busy: 256 pairs of 340 × 256, less what is done early.
TILES_IN_FLIGHT = 256 * 16 * 11
MOST_PAIRS = 1024
FEWEST_PAIRS = 8
SHARE_OF_MEMORY = 0.6  # of what is free, at most


class PairsInFlight(BatchedFlow):
    """TV-L1 on a GPU by Triton kernels (or, on a CPU, by Triton's interpreter, for tests).

    Args:
        pairs: in flight at once; None: as many as the device needs and has memory for.
        options: of :class:`vidssl.optical_flow.tvl1.slots.Slots`, such as `blocks`.
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
        self.work = Work()
        self._groups: dict[int, _Group] = {}

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        queue = _Queue(pairs)
        while not queue.ended or any(group.busy for group in self._groups.values()):
            self._fill(queue)
            for group in self._groups.values():
                if group.busy:
                    group.advance()
                    yield from group.take(self.work)

    def _fill(self, queue: _Queue) -> None:
        """Returns free slots to pairs that are there; stops at the first that finds no slot."""
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
        """Finds the group for pictures of about this size: up to 1.4 times as many tiles."""
        height, width = pair.before.shape
        size = math.ceil(2 * math.log2(tiles_of(height, width)))
        if size not in self._groups:
            tiles = math.floor(2 ** (size / 2))
            slots = Slots(self.parameters, self._room(tiles), tiles, self.device, **self.options)
            self._groups[size] = _Group(slots)
        return self._groups[size]

    def _room(self, tiles: int) -> int:
        """Returns how many pairs of so many tiles are kept in flight.

        Raises:
            VidsslError: the device has no memory for a single one.
        """
        wanted = self.pairs
        if wanted is None:
            wanted = min(max(TILES_IN_FLIGHT // tiles, FEWEST_PAIRS), MOST_PAIRS)
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
    """The pairs to come, with a look at the first one."""

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
        self._first = None


@dataclass(eq=False)
class _Group:
    """Pairs of about one size in the slots that they share.

    Attributes:
        tags: of the pair in each slot that holds one, with its size and the launch before which
            it entered.
        sent: pairs that have a slot but have not been sent to the device.
        snapshots: with the number of the launch after which each was taken.
        arriving: flows that are done, with their tags.
    """

    slots: Slots
    tags: dict[int, tuple[Hashable, tuple[int, int], int]] = field(default_factory=dict)
    sent: list[tuple[int, FramePair]] = field(default_factory=list)
    snapshots: deque[tuple[int, Snapshot]] = field(default_factory=deque)
    arriving: deque[tuple[list[Hashable], Flows]] = field(default_factory=deque)
    launches: int = 0

    def __post_init__(self) -> None:
        self.free = list(reversed(range(self.slots.count)))

    @property
    def busy(self) -> bool:
        return bool(self.tags or self.arriving)

    def add(self, pair: FramePair) -> bool:
        """Returns a pair a slot, if one is free."""
        if not self.free:
            return False
        slot = self.free.pop()
        height, width = pair.before.shape
        self.tags[slot] = (pair.tag, (height, width), self.launches)
        self.sent.append((slot, pair))
        return True

    def send(self) -> None:
        """Sends the pairs that were added, those of one size together."""
        by_size: dict[tuple[int, ...], list[tuple[int, FramePair]]] = {}
        for slot, pair in self.sent:
            by_size.setdefault(pair.before.shape, []).append((slot, pair))
        for some in by_size.values():
            pictures = np.stack([np.stack([pair.before, pair.after]) for _, pair in some])
            self.slots.enter([slot for slot, _ in some], pictures)
        self.sent = []

    def advance(self) -> None:
        self.snapshots.append((self.launches, self.slots.advance()))
        self.launches += 1

    def take(self, work: Work) -> Iterator[TaggedFlow]:
        """Returns flows that have come home; sends others on their way.

        It looks at the launch before the latest, so that the device has work meanwhile; only when
        there is nothing else left, at the latest.
        """
        arriving = list(self.arriving)
        self.arriving.clear()
        while len(self.snapshots) > 1:
            self._send_home(*self.snapshots.popleft(), work)
        for tags, flows in arriving:
            yield from zip(tags, flows.arrived(), strict=True)

    def _send_home(self, launch: int, snapshot: Snapshot, work: Work) -> None:
        by_size: dict[tuple[int, int], list[int]] = {}
        for slot in snapshot.done().tolist():
            # A slot may have been filled again after the launch that the snapshot shows.
            if slot in self.tags and self.tags[slot][2] <= launch:
                by_size.setdefault(self.tags[slot][1], []).append(slot)
        for size, some in by_size.items():
            slots = np.asarray(some)
            flows = self.slots.fetch(slots, snapshot.side(slots), size)
            self.arriving.append(([self.tags.pop(slot)[0] for slot in some], flows))
            self.free.extend(some)
            work.pairs += len(some)
            work.pixel_iterations += int(snapshot.work(slots).sum())
