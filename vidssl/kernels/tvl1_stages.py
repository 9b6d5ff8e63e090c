"""TV-L1 between two rounds of iteration on a GPU: chooses the next stage, enters the next scale.

Slots, tiles and buffers are described in :mod:`vidssl.kernels.tvl1_tiles`. The same in plain
PyTorch: the loops of :func:`vidssl.optical_flow.tvl1.solver.solve`, and
:func:`vidssl.optical_flow.tvl1.pyramid.enlarge_flow`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidssl.kernels.tvl1_state import (
    CONVERGED,
    DONE,
    ENTERS,
    FIELDS,
    FILTERS,
    HEIGHT,
    INNER,
    OUTER,
    P_SIDE,
    PHASE,
    PITCH,
    RUNNING,
    SCALE,
    SCALES,
    STOPPED,
    U_SIDE,
    WARP,
    WARPS,
    WIDTH,
)
from vidssl.kernels.tvl1_tiles import count_tiles, tile_places


@triton.jit
def next_stage(state, shapes, outer_iterations, warps, S: tl.constexpr):
    """Decides what comes after an iteration that has stopped. Grid (N,).

    Afterwards U_SIDE is the side that will hold the flow at the end of the block's stages:
    `enter_scale` reads this side and writes the other, `linearise` reads the other, and
    `median_filter` reads the other and writes this one.
    """
    slot = tl.program_id(0)
    row = state + slot * FIELDS
    asked = (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 1)
    scale, warp, outer = tl.load(row + SCALE), tl.load(row + WARP), tl.load(row + OUTER) + 1
    again = (tl.load(row + CONVERGED) == 0) & (outer < outer_iterations)
    stays = again | (warp + 1 < warps)
    done = asked & (stays == 0) & (scale == 0)
    goes = asked & (done == 0)
    enters = goes & (stays == 0)
    tl.store(row + ENTERS, enters.to(tl.int32))
    tl.store(row + WARPS, (goes & (again == 0)).to(tl.int32))
    tl.store(row + FILTERS, goes.to(tl.int32))
    if goes:
        scale = tl.where(stays, scale, scale - 1)
        tl.store(row + SCALE, scale)
        shape = shapes + (slot * S + scale) * 3
        tl.store(row + HEIGHT, tl.load(shape))
        tl.store(row + WIDTH, tl.load(shape + 1))
        tl.store(row + PITCH, tl.load(shape + 2))
        tl.store(row + WARP, tl.where(again, warp, tl.where(stays, warp + 1, 0)))
        tl.store(row + OUTER, tl.where(again, outer, 0))
        tl.store(row + INNER, 0)
        tl.store(row + STOPPED, 0)
        side = tl.load(row + U_SIDE)
        tl.store(row + U_SIDE, tl.where(enters, side, 1 - side))
    if done:
        tl.store(row + PHASE, DONE)


@triton.jit
def enter_scale(
    u, p, slope, pictures, state, shapes, enlargement,
    plane: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Begins a scale: enlarges the coarser flow, sets p = 0, computes ∇I₁. Grid (most, N)."""
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + ENTERS) == 1:
        scale = tl.load(row + SCALE)
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < count_tiles(height, pitch, H, W):
            y, x = tile_places(tile, pitch, H, W)
            here = (y < height) & (x < width)
            at = y * pitch + x
            far = slot.to(tl.int64)

            picture = pictures + ((far * 2 + 1) * S + scale) * plane
            slope += far * 2 * plane
            before, after = tl.maximum(x - 1, 0), tl.minimum(x + 1, width - 1)
            gx = tl.load(picture + y * pitch + after, mask=here, other=0.0)
            gx -= tl.load(picture + y * pitch + before, mask=here, other=0.0)
            before, after = tl.maximum(y - 1, 0), tl.minimum(y + 1, height - 1)
            gy = tl.load(picture + after * pitch + x, mask=here, other=0.0)
            gy -= tl.load(picture + before * pitch + x, mask=here, other=0.0)
            tl.store(slope + at, 0.5 * gx, mask=here)
            tl.store(slope + plane + at, 0.5 * gy, mask=here)

            p += (far * 2 + tl.load(row + P_SIDE)) * 4 * plane
            nothing = tl.zeros([H, W], dtype=tl.float32)
            for part in tl.static_range(4):
                tl.store(p + part * plane + at, nothing, mask=here)

            side = tl.load(row + U_SIDE)
            new_u = u + (far * 2 + 1 - side) * 2 * plane
            if scale + 1 == tl.load(row + SCALES):
                tl.store(new_u + at, nothing, mask=here)
                tl.store(new_u + plane + at, nothing, mask=here)
            else:
                shape = shapes + (slot * S + scale + 1) * 3
                rows, columns, coarse = tl.load(shape), tl.load(shape + 1), tl.load(shape + 2)
                u += (far * 2 + side) * 2 * plane
                top, bottom, down = _between(y, height, rows)
                first, last, across = _between(x, width, columns)
                for part in tl.static_range(2):
                    some = u + part * plane
                    a = tl.load(some + top * coarse + first, mask=here, other=0.0)
                    b = tl.load(some + top * coarse + last, mask=here, other=0.0)
                    c = tl.load(some + bottom * coarse + first, mask=here, other=0.0)
                    d = tl.load(some + bottom * coarse + last, mask=here, other=0.0)
                    a += across * (b - a)
                    c += across * (d - c)
                    tl.store(new_u + part * plane + at, enlargement * (a + down * (c - a)),
                             mask=here)  # fmt: skip


@triton.jit
def _between(place, size, coarse):
    """Returns the coarse pixels on both sides of a fine one, and the weight of the second."""
    spot = (place.to(tl.float32) + 0.5) * (coarse.to(tl.float32) / size.to(tl.float32)) - 0.5
    spot = tl.minimum(tl.maximum(spot, 0.0), (coarse - 1).to(tl.float32))
    first = spot.to(tl.int32)
    return first, tl.minimum(first + 1, coarse - 1), spot - first.to(tl.float32)
