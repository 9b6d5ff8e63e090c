"""TV-L1 on a GPU: Triton kernels, each for many pairs at once, each pair at a stage of its own.

A pair lives in a slot. What a slot is doing is in its row of `state`, on the device (its columns:
:mod:`vidssl.kernels.tvl1_state`), so the host launches the same kernels over and over and never
waits to learn who is done:

    plan      slots whose iteration has stopped: what comes next (median, warp, scale, the end)
    enter     slots that enter a scale: the flow enlarged, p = 0, the second picture's gradient
    linearise slots that warp: the data term at the flow
    smooth    slots between two rounds of iteration: p by the flow, the median of the flow
    step      all slots that have not stopped: one iteration, and the flow's change tile by tile
    judge     whether a slot's iteration stops here

`smooth` and `step` read one side of a buffer and write the other, so programs may run in any
order. Sums have a fixed order and there are no atomics: a pair gives the same bits in any company.
The equations are those of :mod:`vidssl.optical_flow.tvl1.solver`.

Planes are float32 with rows of `pitch` places, a multiple of :data:`TILE_W`. One program works on
TILE_H × TILE_W pixels of one slot; programs beyond a slot's last tile end at once. Lanes lie along
a row, so each load is of consecutive addresses. Within a plane offsets have 32 bits, between slots
64. `plane` is a constant when kernels are compiled, so that a place in the next plane is an address
with a constant added, which costs no instruction.

The buffers, for N slots with planes of `plane` places in `most` tiles, and S scales at most:

    pictures  [N, 2, S, plane] both pictures at all scales
    slope     [N, 2, plane]    the second picture's gradient, at the slot's scale
    data      [N, 3, plane]    ∇I₁ (x, y) and the constant part of ρ, at the slot's warp
    u         [N, 2, 2, plane] side, component
    p         [N, 2, 4, plane] side, (u across, u down, v across, v down)
    partial   [N, most]        Σ |change of u|² of each tile
    shapes    [N, S, 3] int32  height, width and pitch of each scale
    tolerance [N, S]           the sum at which iteration stops
    state     [N, FIELDS] int32
    work      [N] int64        pixels × iterations so far
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidssl.kernels.tvl1_state import (
    CONVERGED,
    DONE,
    ENTERS,
    FIELDS,
    HEIGHT,
    INNER,
    OUTER,
    P_SIDE,
    PHASE,
    PITCH,
    RUNNING,
    SCALE,
    SCALES,
    SMOOTHS,
    STOPPED,
    U_SIDE,
    WARP,
    WARPS,
    WIDTH,
)

TILE_H, TILE_W = 16, 32
NUM_WARPS = 8

_FLAT = tl.constexpr(1.1920928955078125e-07)  # as solver.FLAT
_CUBIC = tl.constexpr(-0.75)  # OpenCV's coefficient of bicubic interpolation
_JUDGED = tl.constexpr(256)  # tiles that `judge` adds up at a time


# ── where a program works


@triton.jit
def _tiles(height, pitch, H: tl.constexpr, W: tl.constexpr):
    return ((height + H - 1) // H) * (pitch // W)


@triton.jit
def _places(tile, pitch, H: tl.constexpr, W: tl.constexpr):
    across = pitch // W
    y = (tile // across) * H + tl.arange(0, H)
    x = (tile % across) * W + tl.arange(0, W)
    return y[:, None], x[None, :]


# ── the iteration


@triton.jit
def step(
    u, p, data, partial, state, most, data_step, dual_step, coupling,
    plane: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """One iteration of every slot that has not stopped. Grid (most, N).

    The solver moves u by p and then p by the new u, which would need the neighbours' new u here.
    So p is always one move behind: a step first makes up for it and then moves u. Right after
    `smooth` p is up to date, and only u is moved.
    """
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < _tiles(height, pitch, H, W):
            u_side, p_side = tl.load(row + U_SIDE), tl.load(row + P_SIDE)
            due = tl.where(tl.load(row + INNER) > 0, dual_step, 0.0)
            y, x = _places(tile, pitch, H, W)
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
    """Moves p of one component by u and stores it; gives u and the divergence of the moved p.

    p to the left and above is moved here as well, rather than waited for.
    """
    centre = tl.load(u, mask=here, other=0.0)
    dx = tl.where(right, tl.load(u + 1, mask=right, other=0.0) - centre, 0.0)
    dy = tl.where(below, tl.load(u + pitch, mask=below, other=0.0) - centre, 0.0)
    across = tl.load(p, mask=here, other=0.0)
    down = tl.load(p + plane, mask=here, other=0.0)
    across, down = _moved(across, down, dx, dy, dual_step)
    tl.store(new_p, across, mask=here)
    tl.store(new_p + plane, down, mask=here)

    beside = tl.load(u - 1, mask=left, other=0.0)
    dx = tl.where(left, centre - beside, 0.0)
    corner = left & below
    dy = tl.where(corner, tl.load(u + pitch - 1, mask=corner, other=0.0) - beside, 0.0)
    across_left, _ = _moved(tl.load(p - 1, mask=left, other=0.0), 0.0, dx, dy, dual_step)

    beside = tl.load(u - pitch, mask=above, other=0.0)
    dy = tl.where(above, centre - beside, 0.0)
    corner = above & right
    dx = tl.where(corner, tl.load(u - pitch + 1, mask=corner, other=0.0) - beside, 0.0)
    down_above = tl.load(p + plane - pitch, mask=above, other=0.0)
    _, down_above = _moved(0.0, down_above, dx, dy, dual_step)
    return centre, (across - across_left) + (down - down_above)


@triton.jit
def _moved(across, down, dx, dy, dual_step):
    """Returns p after a step along the gradient (dx, dy) of u."""
    length = 1.0 + dual_step * tl.sqrt(dx * dx + dy * dy)
    inverse = tl.rsqrt(length * length)  # two instructions, where a division takes eight
    return (across + dual_step * dx) * inverse, (down + dual_step * dy) * inverse


@triton.jit
def judge(
    partial, state, tolerance, work, most, inner_iterations,
    S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Counts the iteration that `step` made, and stops slots that need no other. Grid (N,)."""
    slot = tl.program_id(0)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        scale = tl.load(row + SCALE)
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        tiles = _tiles(height, pitch, H, W)
        partial += slot.to(tl.int64) * most
        sums = tl.zeros([_JUDGED], dtype=tl.float32)
        first = 0
        while first < tiles:
            some = first + tl.arange(0, _JUDGED)
            sums += tl.load(partial + some, mask=some < tiles, other=0.0)
            first += _JUDGED
        change = tl.sum(sums, axis=0)
        converged = change <= tl.load(tolerance + slot * S + scale)
        inner = tl.load(row + INNER) + 1
        tl.store(row + INNER, inner)
        tl.store(row + CONVERGED, converged.to(tl.int32))
        tl.store(row + STOPPED, (converged | (inner >= inner_iterations)).to(tl.int32))
        tl.store(row + U_SIDE, 1 - tl.load(row + U_SIDE))
        tl.store(row + P_SIDE, 1 - tl.load(row + P_SIDE))
        tl.store(work + slot, tl.load(work + slot) + height * width)


# ── between iterations


@triton.jit
def plan(state, shapes, outer_iterations, warps, S: tl.constexpr):
    """Decides what comes after an iteration that has stopped. Grid (N,).

    Afterwards U_SIDE is the side that holds the flow when the block's transitions are done:
    `enter` reads it and writes the other one, `linearise` reads the other one, `smooth` reads the
    other one and writes it.
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
    tl.store(row + SMOOTHS, goes.to(tl.int32))
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
def enter(
    u, p, slope, pictures, state, shapes, enlargement,
    plane: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Begins a scale: the coarser scale's flow enlarged, p = 0, ∇I₁. Grid (most, N)."""
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + ENTERS) == 1:
        scale = tl.load(row + SCALE)
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < _tiles(height, pitch, H, W):
            y, x = _places(tile, pitch, H, W)
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
    """Returns the coarse pixels on both sides of a fine one, and the second one's share."""
    spot = (place.to(tl.float32) + 0.5) * (coarse.to(tl.float32) / size.to(tl.float32)) - 0.5
    spot = tl.minimum(tl.maximum(spot, 0.0), (coarse - 1).to(tl.float32))
    first = spot.to(tl.int32)
    return first, tl.minimum(first + 1, coarse - 1), spot - first.to(tl.float32)


@triton.jit
def linearise(
    u, data, slope, pictures, state,
    plane: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Returns the data term at the flow: bicubic, zeros beyond the border. Grid (most, N)."""
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + WARPS) == 1:
        scale = tl.load(row + SCALE)
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < _tiles(height, pitch, H, W):
            y, x = _places(tile, pitch, H, W)
            here = (y < height) & (x < width)
            at = y * pitch + x
            far = slot.to(tl.int64)
            u += (far * 2 + 1 - tl.load(row + U_SIDE)) * 2 * plane
            data += far * 3 * plane
            slope += far * 2 * plane
            picture = pictures + (far * 2 * S + scale) * plane
            moving = picture + S * plane

            u1 = tl.load(u + at, mask=here, other=0.0)
            u2 = tl.load(u + plane + at, mask=here, other=0.0)
            # Far beyond the border all is zero; held so that it fits an integer.
            px = tl.minimum(tl.maximum(x.to(tl.float32) + u1, -4.0), width.to(tl.float32) + 4.0)
            py = tl.minimum(tl.maximum(y.to(tl.float32) + u2, -4.0), height.to(tl.float32) + 4.0)
            left, top = tl.floor(px), tl.floor(py)
            tx, ty = px - left, py - top
            column0, row0 = left.to(tl.int32) - 1, top.to(tl.int32) - 1

            value = tl.zeros([H, W], dtype=tl.float32)
            gx = tl.zeros([H, W], dtype=tl.float32)
            gy = tl.zeros([H, W], dtype=tl.float32)
            for j in tl.static_range(4):
                line = row0 + j
                weight_y = _cubic_weight(j, ty)
                for i in tl.static_range(4):
                    column = column0 + i
                    weight = weight_y * _cubic_weight(i, tx)
                    there = here & (line >= 0) & (line < height)
                    there = there & (column >= 0) & (column < width)
                    source = line * pitch + column
                    value += weight * tl.load(moving + source, mask=there, other=0.0)
                    gx += weight * tl.load(slope + source, mask=there, other=0.0)
                    gy += weight * tl.load(slope + plane + source, mask=there, other=0.0)
            still = tl.load(picture + at, mask=here, other=0.0)
            tl.store(data + at, gx, mask=here)
            tl.store(data + plane + at, gy, mask=here)
            tl.store(data + 2 * plane + at, value - gx * u1 - gy * u2 - still, mask=here)


@triton.jit
def _cubic_weight(n: tl.constexpr, t):
    """Returns Keys' weight of the n-th of four pixels, t being the place after the second one."""
    if n == 0:
        t += 1
    elif n == 2:
        t = 1 - t
    elif n == 3:
        t = 2 - t
    if (n == 1) | (n == 2):
        weight = ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1
    else:
        weight = ((t - 5) * t + 8) * t * _CUBIC - 4 * _CUBIC
    return weight


# ── the median of 5 × 5; see vidssl.optical_flow.tvl1.median for why it is right


@triton.jit
def smooth(
    u, p, state, dual_step, plane: tl.constexpr, H: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """The median of 5 × 5 of one component of the flow. Grid (most, N, 2).

    Before, it moves p by the flow as it was, which the last step has left undone.
    """
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + SMOOTHS) == 1:
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < _tiles(height, pitch, H, W):
            y, x = _places(tile, pitch, H, W)
            side, far = tl.load(row + U_SIDE), slot.to(tl.int64)
            part = tl.program_id(2)
            new_u = u + (far * 2 + side) * 2 * plane + part * plane
            u += (far * 2 + 1 - side) * 2 * plane + part * plane
            here = (y < height) & (x < width)
            if tl.load(row + ENTERS) == 0:
                centre = u + y * pitch + x
                right, below = here & (x + 1 < width), here & (y + 1 < height)
                value = tl.load(centre, mask=here, other=0.0)
                dx = tl.where(right, tl.load(centre + 1, mask=right, other=0.0) - value, 0.0)
                dy = tl.where(below, tl.load(centre + pitch, mask=below, other=0.0) - value, 0.0)
                dual = p + ((far * 2 + tl.load(row + P_SIDE)) * 4 + part * 2) * plane
                dual += y * pitch + x
                across = tl.load(dual, mask=here, other=0.0)
                down = tl.load(dual + plane, mask=here, other=0.0)
                across, down = _moved(across, down, dx, dy, dual_step)
                tl.store(dual, across, mask=here)
                tl.store(dual + plane, down, mask=here)
            a0, a1, a2, a3, a4 = _sorted_column(u, y, x - 2, here, height, width, pitch)
            b0, b1, b2, b3, b4 = _sorted_column(u, y, x - 1, here, height, width, pitch)
            c0, c1, c2, c3, c4 = _sorted_column(u, y, x, here, height, width, pitch)
            d0, d1, d2, d3, d4 = _sorted_column(u, y, x + 1, here, height, width, pitch)
            e0, e1, e2, e3, e4 = _sorted_column(u, y, x + 2, here, height, width, pitch)
            _a, _b, _c, v03, v04 = _sort_five(a0, b0, c0, d0, e0)
            _a, _b, v12, v13, v14 = _sort_five(a1, b1, c1, d1, e1)
            _a, v21, v22, v23, _b = _sort_five(a2, b2, c2, d2, e2)
            v30, v31, v32, _a, _b = _sort_five(a3, b3, c3, d3, e3)
            v40, v41, _a, _b, _c = _sort_five(a4, b4, c4, d4, e4)
            v23, v40 = _exchange(v23, v40)
            v12, v31 = _exchange(v12, v31)
            v13, v04 = _exchange(v13, v04)
            v23, v22 = _exchange(v23, v22)
            v32, v41 = _exchange(v32, v41)
            v21, v30 = _exchange(v21, v30)
            v32, v22 = _exchange(v32, v22)
            v31, v32 = _exchange(v31, v32)
            v30, v23 = _exchange(v30, v23)
            v31, v23 = _exchange(v31, v23)
            v14, v30 = _exchange(v14, v30)
            v23, v04 = _exchange(v23, v04)
            v13, v31 = _exchange(v13, v31)
            v03, v22 = _exchange(v03, v22)
            v32, v30 = _exchange(v32, v30)
            v32, v03 = _exchange(v32, v03)
            v23, v31 = _exchange(v23, v31)
            v03, v31 = _exchange(v03, v31)
            tl.store(new_u + y * pitch + x, v03, mask=here)


@triton.jit
def _sorted_column(u, y, x, mask, height, width, pitch):
    """Returns the five pixels around (y, x) in its column, sorted; borders repeat."""
    u += tl.minimum(tl.maximum(x, 0), width - 1)
    a = tl.load(u + tl.maximum(y - 2, 0) * pitch, mask=mask, other=0.0)
    b = tl.load(u + tl.maximum(y - 1, 0) * pitch, mask=mask, other=0.0)
    c = tl.load(u + y * pitch, mask=mask, other=0.0)
    d = tl.load(u + tl.minimum(y + 1, height - 1) * pitch, mask=mask, other=0.0)
    e = tl.load(u + tl.minimum(y + 2, height - 1) * pitch, mask=mask, other=0.0)
    return _sort_five(a, b, c, d, e)


@triton.jit
def _sort_five(a, b, c, d, e):
    a, b = _exchange(a, b)
    d, e = _exchange(d, e)
    c, e = _exchange(c, e)
    c, d = _exchange(c, d)
    b, e = _exchange(b, e)
    a, d = _exchange(a, d)
    a, c = _exchange(a, c)
    b, d = _exchange(b, d)
    b, c = _exchange(b, c)
    return a, b, c, d, e


@triton.jit
def _exchange(a, b):
    return tl.minimum(a, b), tl.maximum(a, b)
