"""The columns of `state`, a table of what each slot of TV-L1 on a GPU is doing.

A slot holds one pair of frames (:mod:`vidssl.kernels.tvl1_tiles`). Both the host and the kernels
read and write the table.
"""

from __future__ import annotations

from enum import IntEnum

import triton.language as tl


class Field(IntEnum):
    """The columns of `state`."""

    PHASE = 0  # one of Phase
    STOPPED = 1  # the iteration has stopped: `next_stage` decides what comes next
    CONVERGED = 2  # it stopped because the flow changed no more
    SCALE = 3  # the finest is 0
    SCALES = 4  # how many there are
    WARP = 5  # warps done at this scale
    OUTER = 6  # medians since the warp
    INNER = 7  # iterations since the median
    U_SIDE = 8  # which side of u is the newest
    P_SIDE = 9  # which side of p is the newest
    ENTERS = 10  # whether `enter_scale` has work in this block
    WARPS = 11  # whether `linearise` has work in this block
    FILTERS = 12  # whether `median_filter` has work in this block
    HEIGHT = 13  # of pictures at the slot's scale
    WIDTH = 14  # likewise
    PITCH = 15  # places from one row of a plane to the next, likewise


class Phase(IntEnum):
    """What a slot holds: no pair, a pair that is being computed, or finished flow."""

    EMPTY = 0
    RUNNING = 1
    DONE = 2


# The same for kernels: they can only read global constants of this type.
FIELDS = tl.constexpr(len(Field))
PHASE = tl.constexpr(Field.PHASE.value)
STOPPED = tl.constexpr(Field.STOPPED.value)
CONVERGED = tl.constexpr(Field.CONVERGED.value)
SCALE = tl.constexpr(Field.SCALE.value)
SCALES = tl.constexpr(Field.SCALES.value)
WARP = tl.constexpr(Field.WARP.value)
OUTER = tl.constexpr(Field.OUTER.value)
INNER = tl.constexpr(Field.INNER.value)
U_SIDE = tl.constexpr(Field.U_SIDE.value)
P_SIDE = tl.constexpr(Field.P_SIDE.value)
ENTERS = tl.constexpr(Field.ENTERS.value)
WARPS = tl.constexpr(Field.WARPS.value)
FILTERS = tl.constexpr(Field.FILTERS.value)
HEIGHT = tl.constexpr(Field.HEIGHT.value)
WIDTH = tl.constexpr(Field.WIDTH.value)
PITCH = tl.constexpr(Field.PITCH.value)
RUNNING = tl.constexpr(Phase.RUNNING.value)
DONE = tl.constexpr(Phase.DONE.value)
