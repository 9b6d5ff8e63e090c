"""TV-L1's warp on a GPU: the second picture and its gradient at the flow, and the data term.

Slots, tiles and buffers are described in :mod:`vidssl.kernels.tvl1_tiles`. The same in plain
PyTorch: :func:`vidssl.optical_flow.tvl1.solver.linearise`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vidssl.kernels.tvl1_state import FIELDS, HEIGHT, PITCH, SCALE, U_SIDE, WARPS, WIDTH
from vidssl.kernels.tvl1_tiles import count_tiles, tile_places

_CUBIC = tl.constexpr(-0.75)  # OpenCV's coefficient of bicubic interpolation


@triton.jit
def linearise(
    u, data, slope, pictures, state,
    plane: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Computes the data term at the flow: bicubic, zeros beyond the border. Grid (most, N)."""
    tile, slot = tl.program_id(0), tl.program_id(1)
    row = state + slot * FIELDS
    if tl.load(row + WARPS) == 1:
        height, width, pitch = tl.load(row + HEIGHT), tl.load(row + WIDTH), tl.load(row + PITCH)
        if tile < count_tiles(height, pitch, H, W):
            y, x = tile_places(tile, pitch, H, W)
            here = (y < height) & (x < width)
            at = y * pitch + x
            scale, far = tl.load(row + SCALE), slot.to(tl.int64)
            u += (far * 2 + 1 - tl.load(row + U_SIDE)) * 2 * plane
            data += far * 3 * plane
            slope += far * 2 * plane
            picture = pictures + (far * 2 * S + scale) * plane
            moving = picture + S * plane

            u1 = tl.load(u + at, mask=here, other=0.0)
            u2 = tl.load(u + plane + at, mask=here, other=0.0)
            # Far beyond the border all is zero; clamped so that it fits an integer.
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
    """Returns Keys' weight of the n-th of four pixels; t is the distance from the second pixel."""
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
