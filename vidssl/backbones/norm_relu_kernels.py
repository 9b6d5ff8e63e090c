"""BatchNorm and ReLU on a GPU, for maps whose channels come last in memory.

A map [B, C, T, H, W] is `places` rows of `channels` values; rows lie `spacing` values apart, so a
slice of channels is as good as a whole map. Memory is the limit, so what counts is how often each
kernel passes over a map (n bytes):

    statistics, finish_statistics     n read                    mean, 1/σ, running statistics
    normalise                         n read, n written         y = relu((x − μ) γ/σ + β)
    reduce_gradient, finish_gradient  2 n read                  Σ g and Σ g x̂, where g = dy if y > 0
    input_gradient                    2 n read, n written       dx

8 n for a step; torch's kernels for both layers take 13 n, since they read and write y once more on
the way, and read it to know where the ReLU was open. Here that follows from x again.

One program works on a chunk of consecutive rows and a block of channels. Its lanes sum up for
themselves, and only at the end with each other; chunks are then joined in one order, without
atomics: the same map gives the same bits. Sums are float32, of differences from a running mean
(Welford 1962, joined as by Chan et al. 1979), since E[x²] − E[x]² would cancel.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE = 2048  # values of a map that a program has in work
MOST_CHANNELS = 64  # of a block
CHUNKS = 1024  # programs that share the channels of a map: several for each multiprocessor
JOINED, JOINED_CHANNELS = 64, 16  # partial sums, and channels, that a program joins at a time
NUM_WARPS = 4


@triton.jit
def _place(row, c, spacing, places, channels):
    """Where values of rows and channels lie, and which are there."""
    here = (row < places)[:, None] & (c < channels)[None, :]
    return row.to(tl.int64)[:, None] * spacing + c[None, :], here


@triton.jit
def _of_channels(mean, scale, weight, bias, c, channels):
    """μ, 1/σ, γ and β."""
    known = c < channels
    mu = tl.load(mean + c, mask=known, other=0.0)[None, :]
    over_sigma = tl.load(scale + c, mask=known, other=0.0)[None, :]
    gamma = tl.load(weight + c, mask=known, other=0.0)[None, :]
    beta = tl.load(bias + c, mask=known, other=0.0)[None, :]
    return mu, over_sigma, gamma, beta


# ── forward


@triton.jit
def statistics(
    x, partial, places, spacing, channels, per_chunk, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """Mean and Σ (x − mean)² of each chunk: partial [chunks, 2, channels]."""
    chunk, block = tl.program_id(0), tl.program_id(1)
    first = chunk * per_chunk
    last = tl.minimum(first + per_chunk, places)
    c = block * C + tl.arange(0, C)
    count = tl.zeros([R], tl.float32)  # of a lane, as are
    mean = tl.zeros([R, C], tl.float32)
    spread = tl.zeros([R, C], tl.float32)
    for start in range(first, last, R):
        row = start + tl.arange(0, R)
        at, here = _place(row, c, spacing, last, channels)
        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        count += tl.where(row < last, 1.0, 0.0)
        away = tl.where((row < last)[:, None], value - mean, 0.0)
        mean += away * (1.0 / tl.maximum(count, 1.0))[:, None]
        spread += away * (value - mean)
    common = tl.sum(count[:, None] * mean, 0) / tl.sum(count, 0)
    away = mean - common[None, :]
    out = partial + chunk * 2 * channels + c
    tl.store(out, common, mask=c < channels)
    square = tl.sum(spread + count[:, None] * away * away, 0)
    tl.store(out + channels, square, mask=c < channels)


@triton.jit
def finish_statistics(
    partial, mean, scale, running_mean, running_var, places, channels, chunks, per_chunk,
    momentum, eps, K: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Mean and 1/σ of the map from its chunks'; running statistics move (unbiased variance)."""
    c = tl.program_id(0) * C + tl.arange(0, C)
    total = tl.zeros([K, C], tl.float32)
    for chunk in range(0, chunks, K):
        at, here, count = _partial(chunk, places, channels, chunks, per_chunk, c, K)
        total += count * tl.load(partial + at, mask=here, other=0.0)
    common = tl.sum(total, 0) / places
    spread = tl.zeros([K, C], tl.float32)
    for chunk in range(0, chunks, K):
        at, here, count = _partial(chunk, places, channels, chunks, per_chunk, c, K)
        away = tl.load(partial + at, mask=here, other=0.0) - common[None, :]
        of_chunk = tl.load(partial + at + channels, mask=here, other=0.0)
        spread += tl.where(here, of_chunk + count * away * away, 0.0)
    square = tl.sum(spread, 0)
    known = c < channels
    tl.store(mean + c, common, mask=known)
    tl.store(scale + c, 1.0 / tl.sqrt(square / places + eps), mask=known)
    old_mean = tl.load(running_mean + c, mask=known, other=0.0)
    old_var = tl.load(running_var + c, mask=known, other=0.0)
    variance = square / (places - 1)
    tl.store(running_mean + c, (1 - momentum) * old_mean + momentum * common, mask=known)
    tl.store(running_var + c, (1 - momentum) * old_var + momentum * variance, mask=known)


@triton.jit
def _partial(chunk, places, channels, chunks, per_chunk, c, K: tl.constexpr):
    """Where partial sums of K chunks lie, and of how many rows each is."""
    k = chunk + tl.arange(0, K)
    here = (k < chunks)[:, None] & (c < channels)[None, :]
    rows = tl.minimum(places - k * per_chunk, per_chunk)
    count = tl.where(k < chunks, rows, 0).to(tl.float32)
    return k[:, None] * 2 * channels + c[None, :], here, count[:, None]


@triton.jit
def normalise(
    x, y, mean, scale, weight, bias, places, spacing, channels, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """y = relu(γ x̂ + β); rows of y lie `channels` apart."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    mu, over_sigma, gamma, beta = _of_channels(mean, scale, weight, bias, c, channels)
    at, here = _place(row, c, spacing, places, channels)
    value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    made = (value - mu) * over_sigma * gamma + beta
    to, here = _place(row, c, channels, places, channels)
    # Not maximum(made, 0), which may lose a NaN.
    tl.store(y + to, tl.where(made <= 0, 0.0, made), mask=here)


# ── backward


@triton.jit
def reduce_gradient(
    dy, x, partial, mean, scale, weight, bias, places, dy_spacing, spacing, channels, per_chunk,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Σ g and Σ g x̂ of each chunk: partial [chunks, 2, channels]; g is dy where y > 0."""
    chunk, block = tl.program_id(0), tl.program_id(1)
    first = chunk * per_chunk
    last = tl.minimum(first + per_chunk, places)
    c = block * C + tl.arange(0, C)
    mu, over_sigma, gamma, beta = _of_channels(mean, scale, weight, bias, c, channels)
    plain = tl.zeros([R, C], tl.float32)
    with_unit = tl.zeros([R, C], tl.float32)
    for start in range(first, last, R):
        row = start + tl.arange(0, R)
        at, here = _place(row, c, spacing, last, channels)
        unit = (tl.load(x + at, mask=here, other=0.0).to(tl.float32) - mu) * over_sigma
        at, here = _place(row, c, dy_spacing, last, channels)
        g = tl.load(dy + at, mask=here, other=0.0).to(tl.float32)
        g = tl.where(unit * gamma + beta <= 0, 0.0, g)
        plain += g
        with_unit += g * unit
    out = partial + chunk * 2 * channels + c
    tl.store(out, tl.sum(plain, 0), mask=c < channels)
    tl.store(out + channels, tl.sum(with_unit, 0), mask=c < channels)


@triton.jit
def finish_gradient(
    partial, d_weight, d_bias, channels, chunks, K: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """dβ = Σ g and dγ = Σ g x̂ over all chunks."""
    c = tl.program_id(0) * C + tl.arange(0, C)
    plain = tl.zeros([K, C], tl.float32)
    with_unit = tl.zeros([K, C], tl.float32)
    for chunk in range(0, chunks, K):
        k = chunk + tl.arange(0, K)
        here = (k < chunks)[:, None] & (c < channels)[None, :]
        at = k[:, None] * 2 * channels + c[None, :]
        plain += tl.load(partial + at, mask=here, other=0.0)
        with_unit += tl.load(partial + at + channels, mask=here, other=0.0)
    tl.store(d_bias + c, tl.sum(plain, 0), mask=c < channels)
    tl.store(d_weight + c, tl.sum(with_unit, 0), mask=c < channels)


@triton.jit
def input_gradient(
    dy, x, dx, mean, scale, weight, bias, d_weight, d_bias, places, dy_spacing, spacing, channels,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """dx = γ/σ (g − (Σ g + x̂ Σ g x̂) / places); rows of dx lie `channels` apart."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    mu, over_sigma, gamma, beta = _of_channels(mean, scale, weight, bias, c, channels)
    known = c < channels
    plain = tl.load(d_bias + c, mask=known, other=0.0)[None, :]
    with_unit = tl.load(d_weight + c, mask=known, other=0.0)[None, :]
    at, here = _place(row, c, spacing, places, channels)
    unit = (tl.load(x + at, mask=here, other=0.0).to(tl.float32) - mu) * over_sigma
    at, here = _place(row, c, dy_spacing, places, channels)
    g = tl.load(dy + at, mask=here, other=0.0).to(tl.float32)
    g = tl.where(unit * gamma + beta <= 0, 0.0, g)
    to, here = _place(row, c, channels, places, channels)
    made = gamma * over_sigma * (g - (plain + unit * with_unit) / places)
    tl.store(dx + to, made, mask=here)
