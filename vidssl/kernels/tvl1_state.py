"""What a slot of TV-L1 on a GPU is doing: a row of `state`, as the host and as kernels name it."""

from __future__ import annotations

from enum import IntEnum

import triton.language as tl


class Field(IntEnum):
    """The columns of `state`."""

    PHASE = 0  # one of Phase
    STOPPED = 1  # the iteration has stopped: `plan` decides what comes next
    CONVERGED = 2  # it stopped because the flow changed no more
    SCALE = 3  # the finest is 0
    SCALES = 4  # how many there are
    WARP = 5  # warps done at this scale
    OUTER = 6  # medians since the warp
    INNER = 7  # iterations since the median
    U_SIDE = 8  # which side of u is the newest
    P_SIDE = 9  # which side of p is
    ENTERS = 10  # whether `enter` has work in this block
    WARPS = 11  # whether `linearise` has
    SMOOTHS = 12  # whether `smooth` has
    HEIGHT = 13  # of the slot's scale, as are
    WIDTH = 14
    PITCH = 15


class Phase(IntEnum):
    """What a slot holds."""

    EMPTY = 0
    RUNNING = 1
    DONE = 2


# The same for kernels, which may name only constants of this kind.
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
SMOOTHS = tl.constexpr(Field.SMOOTHS.value)
HEIGHT = tl.constexpr(Field.HEIGHT.value)
WIDTH = tl.constexpr(Field.WIDTH.value)
PITCH = tl.constexpr(Field.PITCH.value)
RUNNING = tl.constexpr(Phase.RUNNING.value)
DONE = tl.constexpr(Phase.DONE.value)
