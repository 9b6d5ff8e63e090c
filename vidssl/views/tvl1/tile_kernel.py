"""TV-L1 on a GPU: several iterations a launch, what they change being kept on chip meanwhile.

`step` in :mod:`vidssl.views.tvl1.kernels` reads and writes all of u and p in each iteration. Here
K iterations read and write them once. A picture is cut into tiles of :data:`TILE_W` × TILE_ROWS
pixels. A tile's program is one warp, and goes down the tile row by row: when row y arrives, row
y − 1 makes its first iteration, then row y − 2 its second, … then row y − K its last, and leaves.

                  arrives   1st   2nd   3rd
    row y            ·
    row y − 1                ·
    row y − 2                      ·
    row y − 3                            ·     (K = 3) and is written

For an iteration, a row needs the row below as it was before, which has just made the iteration
before, and the row above as it becomes, which made this one when the last row arrived. So of each
of the K iterations one row is kept, in registers. Each lane has two columns side by side; what it
needs of the columns beside them, it gets from the next lane. There is no shared memory and no
barrier, and the data term, which each row reads K times, comes from the cache after the first.

An iteration is wrong where it lacks a neighbour: one column more at either side of a tile and one
row more at its top and bottom. Tiles overlap by that much, and a tile writes what it owns.

A pair's iteration stops where `step` and `judge` stop it, after any iteration. A launch gives the
change of the flow in each of its iterations, and `judge_tiles` looks for the first that is small
enough. When that is the last one, or when there is none, the launch counts. Otherwise it does not:
the next one starts from the same u and p, which are still there, since a launch reads one side of
the buffers and writes the other, and makes exactly as many iterations as it takes.

Buffers are those of :mod:`vidssl.views.tvl1.kernels`, with one value more of each tile:

    partial   [N, K, most]     Σ |change of u|² of each iteration and tile
"""

# ruff: noqa: RUF005 (kernels cannot unpack tuples with a star)
from __future__ import annotations

import triton
import triton.language as tl

from vidssl.views.tvl1.kernels import FLAT
from vidssl.views.tvl1.slot_state import (
    CONVERGED,
    FIELDS,
    HEIGHT,
    INNER,
    P_SIDE,
    PHASE,
    PITCH,
    REPEATS,
    RUNNING,
    SCALE,
    STOPPED,
    U_SIDE,
    WIDTH,
)

ITERATIONS = 4  # of a launch, at most; even, so that no tile's border parts a lane's two columns
TILE_W = 64  # two for each lane of a warp
TILE_ROWS = 64  # that a tile owns; it goes through ITERATIONS more at its top and bottom

_LANES = tl.constexpr(32)
_JUDGED = tl.constexpr(64)  # tiles that `judge_tiles` adds up at a time


# ── where a program works


def most_tiles(places: int, pitch: int, iterations: int, rows: int) -> int:
    """Gives the most tiles that a picture may be cut into, however long its sides are.

    Args:
        places: of a plane.
        pitch: what a row's places are a multiple of.
        iterations: of a launch, at most.
        rows: that a tile owns.
    """
    found = 1
    for width in range(pitch, places + 1, pitch):
        across = max(-(-(width - 2 * iterations) // (TILE_W - 2 * iterations)), 1)
        found = max(found, across * -(-(places // width) // rows))
    return found


@triton.jit
def _tiles(height, width, K: tl.constexpr, W: tl.constexpr, R: tl.constexpr):
    """Gives how many tiles lie side by side, and one above another.

    At the picture's border nothing overlaps, so the first and the last tile of a row own more.
    """
    own: tl.constexpr = W - 2 * K
    across = tl.maximum((width - 2 * K + own - 1) // own, 1)
    return across, (height + R - 1) // R


@triton.jit
def _iterations(row, inner_iterations, K: tl.constexpr):
    """Gives how many iterations a launch makes of a slot."""
    repeats = tl.load(row + REPEATS)
    left = tl.minimum(inner_iterations - tl.load(row + INNER), K)
    return tl.where(repeats > 0, repeats, left)


# ── the iterations


@triton.jit
def iterate(
    u, p, data, partial, state, most, inner_iterations, data_step, dual_step, coupling,
    plane: tl.constexpr, K: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Up to K iterations of every slot that has not stopped. Grid (most, N), one warp each.

    As `step` does, it leaves p one move behind, and finds it so unless `smooth` was before.
    """
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        height, width = tl.load(row + HEIGHT), tl.load(row + WIDTH)
        across, down = _tiles(height, width, K, W, R)
        if tile < across * down:
            far = slot.to(tl.int64)
            u_side, p_side = tl.load(row + U_SIDE), tl.load(row + P_SIDE)
            first_due = tl.where(tl.load(row + INNER) > 0, dual_step, 0.0)
            pitch = tl.multiple_of(tl.load(row + PITCH), 32)  # so pairs are loaded as such
            iterations = _iterations(row, inner_iterations, K)
            for count in tl.static_range(1, K + 1):
                if iterations == count:
                    _descend(
                        u + (far * 2 + u_side) * 2 * plane,
                        u + (far * 2 + 1 - u_side) * 2 * plane,
                        p + (far * 2 + p_side) * 4 * plane,
                        p + (far * 2 + 1 - p_side) * 4 * plane,
                        data + far * 3 * plane,
                        partial + far * K * most + tile, most,
                        height, width, pitch, tile % across, across, tile // across,
                        data_step, dual_step, coupling, first_due,
                        count, plane, K, W, R,
                    )  # fmt: skip


@triton.jit
def _descend(
    old_u, new_u, old_p, new_p, data, partial, most,
    height, width, pitch, column, columns, segment, data_step, dual_step, coupling, first_due,
    COUNT: tl.constexpr, plane: tl.constexpr, K: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Makes exactly COUNT iterations of one tile.

    Rows and columns beyond the picture are iterated like others, on whatever finite numbers lie
    there. Nothing of them gets into the picture: p does not move across its border.
    """
    left = column * (W - 2 * K)
    x = left + tl.arange(0, W)
    pair = tl.reshape(x, [_LANES, 2])
    due = tl.where(pair + 1 < width, dual_step, 0.0)
    inside = tl.where(pair > 0, 1.0, 0.0)
    own_left = tl.multiple_of(tl.where(column > 0, left + K, 0), 2)
    own_right = tl.multiple_of(tl.where(column + 1 < columns, left + W - K, pitch), 2)
    first, end = segment * R, tl.minimum(segment * R + R, height)

    old_u, new_u, old_p, new_p, data = old_u + x, new_u + x, old_p + x, new_p + x, data + x
    zero = tl.zeros([_LANES, 2], dtype=tl.float32)
    rows, changes = ((zero, zero, zero, zero, zero, zero),), ()  # rows[k] has made k iterations
    for k in tl.static_range(COUNT):
        rows, changes = rows + (rows[k],), changes + (zero,)
    y = tl.maximum(first - COUNT, 0)
    coming = _row(old_u, old_p, y * pitch, plane, W)
    while y < end + COUNT:
        below = coming
        coming = _row(old_u, old_p, tl.minimum(y + 1, height - 1) * pitch, plane, W)
        new_rows, new_changes = (below,), ()
        for k in tl.static_range(COUNT):
            here = y - 1 - k
            step = dual_step if k > 0 else first_due
            term = data + tl.minimum(tl.maximum(here, 0), height - 1) * pitch
            gx, gy = _pairs(term, W), _pairs(term + plane, W)
            constant = _pairs(term + 2 * plane, W)
            due_across = due if k > 0 else tl.minimum(due, step)
            due_down = tl.where((here >= 0) & (here + 1 < height), step, 0.0)
            below, change = _iteration(
                rows[k], below, rows[k + 1], gx, gy, constant,
                due_across, due_down, inside, data_step, coupling,
            )  # fmt: skip
            counts = tl.where((here >= first) & (here < end), 1.0, 0.0)
            new_rows = new_rows + (below,)
            new_changes = new_changes + (changes[k] + counts * change,)
        rows, changes = new_rows, new_changes
        at, save = (y - COUNT) * pitch, x < tl.where(y - COUNT >= first, own_right, 0)
        save = save & (x >= own_left)
        for part in tl.static_range(2):
            _save(new_u + part * plane + at, below[part], save, W)
        for part in tl.static_range(4):
            _save(new_p + part * plane + at, below[2 + part], save, W)
        y += 1
    counts = (pair >= own_left) & (pair < tl.minimum(own_right, width))
    for k in tl.static_range(COUNT):
        change = tl.where(counts, changes[k], 0.0)
        tl.store(partial + k * most, tl.sum(tl.sum(change, axis=1), axis=0))


@triton.jit
def _iteration(
    row, below, above, gx, gy, constant,
    due_across, due_down, inside, data_step, coupling,
):  # fmt: skip
    """Moves p of a row by u, then u by p; gives the row, and the squared change of u.

    Args:
        row: u1, u2, and of p across1, down1, across2, down2.
        below: the row below, which has not made this iteration.
        above: the row above, which has.
        due_across, due_down: τ/θ, or 0 where there is no next pixel or no move is due.
        inside: 0 in the picture's first column, 1 elsewhere.
    """
    u1, u2, across1, down1, across2, down2 = row
    across1, down1 = _moved(
        across1, down1, due_across * (_right(u1) - u1), due_down * (below[0] - u1)
    )
    across2, down2 = _moved(
        across2, down2, due_across * (_right(u2) - u2), due_down * (below[1] - u2)
    )
    divergence1 = (across1 - inside * _left(across1)) + (down1 - above[3])
    divergence2 = (across2 - inside * _left(across2)) + (down2 - above[5])
    rho = constant + (gx * u1 + gy * u2)
    inverse = tl.rsqrt(tl.maximum(gx * gx + gy * gy, FLAT))
    shift = tl.minimum(tl.maximum(rho * inverse * inverse, -data_step), data_step)
    move1 = coupling * divergence1 - shift * gx
    move2 = coupling * divergence2 - shift * gy
    change = move1 * move1 + move2 * move2
    return (u1 + move1, u2 + move2, across1, down1, across2, down2), change


@triton.jit
def _moved(across, down, dx, dy):
    """Gives p after a step along the gradient (dx, dy) of u, which is times τ/θ already."""
    length = 1.0 + tl.sqrt(dx * dx + dy * dy)
    inverse = tl.rsqrt(length * length)  # two instructions, where a division takes eight
    return (across + dx) * inverse, (down + dy) * inverse


# ── rows in registers: [lanes, 2], each lane having two columns side by side


@triton.jit
def _row(u, p, at, plane: tl.constexpr, W: tl.constexpr):
    return (
        _pairs(u + at, W), _pairs(u + plane + at, W),
        _pairs(p + at, W), _pairs(p + plane + at, W),
        _pairs(p + 2 * plane + at, W), _pairs(p + 3 * plane + at, W),
    )  # fmt: skip


@triton.jit
def _pairs(at, W: tl.constexpr):
    return tl.reshape(tl.load(at), [W // 2, 2])


@triton.jit
def _save(at, x, mask, W: tl.constexpr):
    tl.store(at, tl.reshape(x, [W]), mask=mask)


@triton.jit
def _right(x):
    """Gives the next column's value; in the last lane any."""
    even, odd = tl.split(x)
    lane = tl.arange(0, _LANES)
    return tl.join(odd, tl.gather(even, tl.minimum(lane + 1, _LANES - 1), axis=0))


@triton.jit
def _left(x):
    """Gives the column's value before; in the first lane any."""
    even, odd = tl.split(x)
    lane = tl.arange(0, _LANES)
    return tl.join(tl.gather(odd, tl.maximum(lane - 1, 0), axis=0), even)


# ── the stop


@triton.jit
def judge_tiles(
    partial, state, tolerance, work, most, inner_iterations,
    S: tl.constexpr, K: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Counts the iterations that `iterate` made, or has them made again up to the stop. Grid (N,).

    After it, as after `judge`, slots that need no other iteration are stopped.
    """
    slot = tl.program_id(0)
    row = state + slot * FIELDS
    if (tl.load(row + PHASE) == RUNNING) & (tl.load(row + STOPPED) == 0):
        height, width = tl.load(row + HEIGHT), tl.load(row + WIDTH)
        across, down = _tiles(height, width, K, W, R)
        made = _iterations(row, inner_iterations, K)
        enough = tl.load(tolerance + slot * S + tl.load(row + SCALE))
        partial += slot.to(tl.int64) * K * most
        stop = made + 1  # the first iteration after which nothing more is needed
        for k in tl.static_range(K - 1, -1, -1):
            tiles = tl.where(k < made, across * down, 0)
            sums, first = tl.zeros([_JUDGED], dtype=tl.float32), 0
            while first < tiles:
                some = first + tl.arange(0, _JUDGED)
                sums += tl.load(partial + k * most + some, mask=some < tiles, other=0.0)
                first += _JUDGED
            stop = tl.where((k < made) & (tl.sum(sums, axis=0) <= enough), k + 1, stop)
        # What is made again has been judged: rounding may differ between loops, the stop may not.
        stop = tl.where(tl.load(row + REPEATS) > 0, made, stop)
        tl.store(row + REPEATS, tl.where(stop < made, stop, 0))
        if stop >= made:
            inner = tl.load(row + INNER) + made
            tl.store(row + INNER, inner)
            tl.store(row + CONVERGED, (stop == made).to(tl.int32))
            tl.store(row + STOPPED, ((stop == made) | (inner >= inner_iterations)).to(tl.int32))
            tl.store(row + U_SIDE, 1 - tl.load(row + U_SIDE))
            tl.store(row + P_SIDE, 1 - tl.load(row + P_SIDE))
            tl.store(work + slot, tl.load(work + slot) + made.to(tl.int64) * (height * width))
