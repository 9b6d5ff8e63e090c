"""TV-L1's median filter of 5 × 5 on a GPU, by a sorting network.

Slots, tiles and buffers are described in :mod:`vidssl.kernels.tvl1_tiles`. The same in plain
PyTorch, with the proof: :mod:`vidssl.optical_flow.tvl1.median`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidssl.kernels.tvl1_iteration import moved
from vidssl.kernels.tvl1_state import ENTERS, FIELDS, FILTERS, HEIGHT, P_SIDE, PITCH, U_SIDE, WIDTH
from vidssl.kernels.tvl1_tiles import count_tiles, tile_places


@triton.jit
def median_filter(
    u, p, state, dual_step, plane: tl.constexpr, H: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """Filters one component of the flow by the median of 5 × 5. Grid (most, N, 2).

    Before that it moves p by the unfiltered flow, which the last step has left undone.
    """
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + FILTERS) == 1:
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < count_tiles(height, pitch, H, W):
            y, x = tile_places(tile, pitch, H, W)
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
                across, down = moved(across, down, dx, dy, dual_step)
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
