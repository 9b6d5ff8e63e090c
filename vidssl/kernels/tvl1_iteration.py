"""TV-L1's iteration on a GPU: one step of every slot, and when a slot stops.

Slots, tiles and buffers are described in :mod:`vidssl.kernels.tvl1_tiles`. The same in plain
PyTorch: :func:`vidssl.optical_flow.tvl1.solver.step`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidssl.kernels.tvl1_state import (
    CONVERGED,
    FIELDS,
    HEIGHT,
    INNER,
    P_SIDE,
    PHASE,
    PITCH,
    RUNNING,
    SCALE,
    STOPPED,
    U_SIDE,
    WIDTH,
)
from vidssl.kernels.tvl1_tiles import count_tiles, tile_places

_FLAT = tl.constexpr(1.1920928955078125e-07)  # as vidssl.optical_flow.tvl1.solver.FLAT
_TILES_AT_ONCE = tl.constexpr(256)  # that `stop_converged` adds up at a time


@triton.jit
def step(
    u, p, data, partial, state, most, data_step, dual_step, coupling,
    plane: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Iterates once every slot that has not stopped. Grid (most, N).

    The solver moves u by p and then p by the new u, which would need the neighbours' new u here.
    So p is always one move behind: a step first moves p, and then u. Right after
    `median_filter` p is up to date, and only u is moved.
    """
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < count_tiles(height, pitch, H, W):
            u_side, p_side = tl.load(row + U_SIDE), tl.load(row + P_SIDE)
            due = tl.where(tl.load(row + INNER) > 0, dual_step, 0.0)
            y, x = tile_places(tile, pitch, H, W)
            at, far = y * pitch + x, slot.to(tl.int64)
            here = (y < height) & (x < width)
            right, below = here & (x + 1 < width), here & (y + 1 < height)
            left, above = here & (x > 0), here & (y > 0)

            old_u = u + (far * 2 + u_side) * 2 * plane + at
            new_u = u + (far * 2 + 1 - u_side) * 2 * plane + at
            old_p = p + (far * 2 + p_side) * 4 * plane + at
            new_p = p + (far * 2 + 1 - p_side) * 4 * plane + at
            u1, divergence1 = _divergence(
                old_u, old_p, new_p, pitch, here, left, right, above, below, due, plane
            )
            u2, divergence2 = _divergence(
                old_u + plane, old_p + 2 * plane, new_p + 2 * plane, pitch,
                here, left, right, above, below, due, plane,
            )  # fmt: skip

            term = data + far * 3 * plane + at
            gx = tl.load(term, mask=here, other=0.0)
            gy = tl.load(term + plane, mask=here, other=0.0)
            constant = tl.load(term + 2 * plane, mask=here, other=0.0)
            rho = constant + (gx * u1 + gy * u2)
            shift = rho / tl.maximum(gx * gx + gy * gy, _FLAT)
            shift = tl.minimum(tl.maximum(shift, -data_step), data_step)
            move1 = coupling * divergence1 - shift * gx
            move2 = coupling * divergence2 - shift * gy
            tl.store(new_u, u1 + move1, mask=here)
            tl.store(new_u + plane, u2 + move2, mask=here)
            change = tl.where(here, move1 * move1 + move2 * move2, 0.0)
            tl.store(partial + far * most + tile, tl.sum(tl.sum(change, axis=1), axis=0))


@triton.jit
def _divergence(
    u, p, new_p, pitch, here, left, right, above, below, dual_step, plane: tl.constexpr
):
    """Moves p of one component by u and stores it; returns u and the divergence of the moved p.

    p to the left and above is computed here as well, so that no program waits for another.
    """
    centre = tl.load(u, mask=here, other=0.0)
    dx = tl.where(right, tl.load(u + 1, mask=right, other=0.0) - centre, 0.0)
    dy = tl.where(below, tl.load(u + pitch, mask=below, other=0.0) - centre, 0.0)
    across = tl.load(p, mask=here, other=0.0)
    down = tl.load(p + plane, mask=here, other=0.0)
    across, down = moved(across, down, dx, dy, dual_step)
    tl.store(new_p, across, mask=here)
    tl.store(new_p + plane, down, mask=here)

    beside = tl.load(u - 1, mask=left, other=0.0)
    dx = tl.where(left, centre - beside, 0.0)
    corner = left & below
    dy = tl.where(corner, tl.load(u + pitch - 1, mask=corner, other=0.0) - beside, 0.0)
    across_left, _ = moved(tl.load(p - 1, mask=left, other=0.0), 0.0, dx, dy, dual_step)

    beside = tl.load(u - pitch, mask=above, other=0.0)
    dy = tl.where(above, centre - beside, 0.0)
    corner = above & right
    dx = tl.where(corner, tl.load(u - pitch + 1, mask=corner, other=0.0) - beside, 0.0)
    down_above = tl.load(p + plane - pitch, mask=above, other=0.0)
    _, down_above = moved(0.0, down_above, dx, dy, dual_step)
    return centre, (across - across_left) + (down - down_above)


@triton.jit
def moved(across, down, dx, dy, dual_step):
    """Returns p after a step along the gradient (dx, dy) of u."""
    length = 1.0 + dual_step * tl.sqrt(dx * dx + dy * dy)
    inverse = tl.rsqrt(length * length)  # two instructions, where a division takes eight
    return (across + dual_step * dx) * inverse, (down + dual_step * dy) * inverse


@triton.jit
def stop_converged(
    partial, state, tolerance, work, most, inner_iterations,
    S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Counts the iteration that `step` made, and stops slots that need no more. Grid (N,)."""
    slot = tl.program_id(0)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        scale = tl.load(row + SCALE)
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        tiles = count_tiles(height, pitch, H, W)
        partial += slot.to(tl.int64) * most
        sums = tl.zeros([_TILES_AT_ONCE], dtype=tl.float32)
        first = 0
        while first < tiles:
            some = first + tl.arange(0, _TILES_AT_ONCE)
            sums += tl.load(partial + some, mask=some < tiles, other=0.0)
            first += _TILES_AT_ONCE
        change = tl.sum(sums, axis=0)
        converged = change <= tl.load(tolerance + slot * S + scale)
        inner = tl.load(row + INNER) + 1
        tl.store(row + INNER, inner)
        tl.store(row + CONVERGED, converged.to(tl.int32))
        tl.store(row + STOPPED, (converged | (inner >= inner_iterations)).to(tl.int32))
        tl.store(row + U_SIDE, 1 - tl.load(row + U_SIDE))
        tl.store(row + P_SIDE, 1 - tl.load(row + P_SIDE))
        tl.store(work + slot, tl.load(work + slot) + height * width)
