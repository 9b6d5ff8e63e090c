"""How TV-L1's kernels on a GPU share the work: slots, planes and tiles.

A kernel works on many pairs of frames at once, each pair at a stage of its own. A pair has a slot:
room of its own in every buffer. What a slot is doing is written in its row of `state`, on the
device (its columns: :mod:`vidssl.kernels.tvl1_state`). So the host launches the same kernels over
and over, and never waits to learn which pairs are done:

    next_stage      (tvl1_stages)     slots whose iteration has stopped: decides what comes next
                                      (median, warp, scale, the end)
    enter_scale     (tvl1_stages)     slots that enter a scale: the flow enlarged, p = 0, the second
                                      picture's gradient
    linearise       (tvl1_warp)       slots that warp: the data term at the flow
    median_filter   (tvl1_median)     slots between two rounds of iteration: p by the flow, the
                                      median of the flow
    step            (tvl1_iteration)  slots that have not stopped: one iteration, and the flow's
                                      change in each tile
    stop_converged  (tvl1_iteration)  decides whether a slot's iteration stops

`median_filter` and `step` read one side of a buffer and write the other, so programs may run in
any order. Sums have a fixed order and there are no atomics: a pair's flow is the same bit for bit,
whatever the other slots hold. The equations, in plain PyTorch, are those of
:mod:`vidssl.optical_flow.tvl1.solver`.

Planes are float32 with rows of `pitch` places, a multiple of :data:`TILE_W`. One program works on
a tile of TILE_H × TILE_W pixels of one slot; programs beyond a slot's last tile end at once. The
threads of a warp lie along a row, so each load is of consecutive addresses. Within a plane offsets
have 32 bits, between slots 64. `plane` is a constant when kernels are compiled, so that an address
in the next plane is an address with a constant added, which costs no instruction.

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

TILE_H, TILE_W = 16, 32
NUM_WARPS = 8


@triton.jit
def count_tiles(height, pitch, H: tl.constexpr, W: tl.constexpr):
    """Returns how many tiles of H×W places cover a plane."""
    return ((height + H - 1) // H) * (pitch // W)


@triton.jit
def tile_places(tile, pitch, H: tl.constexpr, W: tl.constexpr):
    """Returns the rows [H, 1] and the columns [1, W] of a tile's places."""
    across = pitch // W
    y = (tile // across) * H + tl.arange(0, H)
    x = (tile % across) * W + tl.arange(0, W)
    return y[:, None], x[None, :]
