"""Transforms all clips of a batch on a GPU: resizing, colour changes, blur and standardising.

Each step is one kernel over all clips. Plain PyTorch (:mod:`vidssl.clips.gpu.torch_transforms`)
does the same and moves over 100 times a clip's size through memory, as much as the network does
(docs/benchmarks.md). Here a clip is read as bytes and written once, as network input:

    resize          regions of frames          → clips, uint8 (launched twice, along x and then
                                                 along y, where levels are rounded in between)
    means           clips of changed contrast  → the mean grey of each frame
    change_colour   clips                      → network input; for blurred frames: pictures that
                                                 are still to be blurred
    filter_side     these, along x, then y     → network input
    look_up         clips of other views       → network input

Every kind of resizing, and every blur with its border, is a weighted sum along one side and then
the other: each new pixel has the number of its *first* old pixel, and *taps*, the weights of this
pixel and the following ones. A program works on a part of one frame. There are no atomics: the same
clips give the same result bit for bit.

Legend: M clips, C channels, T frames, S pixels of a side, F frames of all clips (M·T), K taps.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Columns of a region's row in the table of `resize`, int64: its address, how many values lie
# between neighbours, its size, how often its first frame is repeated, whether it is mirrored, and
# its own number of taps along x and y (other regions may have more).
ADDRESS = tl.constexpr(0)
ALONG_T = tl.constexpr(1)
ALONG_Y = tl.constexpr(2)
ALONG_X = tl.constexpr(3)
ALONG_C = tl.constexpr(4)
HEIGHT = tl.constexpr(5)
WIDTH = tl.constexpr(6)
REPEATED = tl.constexpr(7)
MIRRORED = tl.constexpr(8)
TAPS_X = tl.constexpr(9)
TAPS_Y = tl.constexpr(10)
REGION = tl.constexpr(11)
# Columns of a row of colour changes, float32: four factors; the four changes in their order, by the
# numbers of their factors; where each channel comes from; the grey channel; and the place of
# contrast in the order.
BRIGHTNESS = tl.constexpr(0)
CONTRAST = tl.constexpr(1)
SATURATION = tl.constexpr(2)
HUE = tl.constexpr(3)
ORDER = tl.constexpr(4)
CHANNELS = tl.constexpr(8)
GREY = tl.constexpr(11)
CONTRAST_PLACE = tl.constexpr(12)
CHANGE = tl.constexpr(13)
NOTHING = tl.constexpr(-1)  # in place of a change or a channel: there is none
NOWHERE = tl.constexpr(4)  # contrast's place in the order where it is not changed
LEVELS = tl.constexpr(256)
# ITU-R 601, as vidssl.augment.colour.GREY_WEIGHTS, which kernels may not import.
RED = tl.constexpr(0.2989)
GREEN = tl.constexpr(0.587)
BLUE = tl.constexpr(0.114)
PIXELS = 1024  # of a frame that a program works on at a time
NUM_WARPS = 4


@triton.jit
def _level(x):
    """Rounds to the nearest of 0..255, halves to even."""
    return _clamped((x + 12582912.0) - 12582912.0)  # 1.5 · 2²³: float32 has no halves there


@triton.jit
def _clamped(x):
    """Limits values to 0..255."""
    return tl.minimum(tl.maximum(x, 0.0), 255.0)


@triton.jit
def _frame_and_part(program, whole, part):
    """Returns the frame and the part of it that a program works on.

    Both are in the grid's first axis: the others are limited to 65,535 programs.
    """
    parts = tl.cdiv(whole, part)
    return program // parts, program % parts


# ── geometry


@triton.jit(do_not_specialize=["frames", "rows", "taps_x", "taps_y"])
def resize(
    table, first_x, weight_x, first_y, weight_y, out, frames, of_block, channels, rows, columns,
    taps_x, taps_y, ROWS: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Resizes regions to clips [M·blocks, C, T, rows, columns].

    A program makes some rows of all channels. `first_x` and `weight_x` are [M, columns] and
    [M, K, columns], `first_y` and `weight_y` the same with rows. At the clip's beginning the
    region's first frame may be repeated.
    """
    part, t, m = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = table + m * REGION
    pixels = tl.load(row + ADDRESS).to(tl.pointer_type(tl.uint8))
    along_t, along_c = tl.load(row + ALONG_T), tl.load(row + ALONG_C)
    along_y, along_x = tl.load(row + ALONG_Y), tl.load(row + ALONG_X)
    height, width = tl.load(row + HEIGHT), tl.load(row + WIDTH)
    t_there = tl.maximum(t - tl.load(row + REPEATED), 0)
    mirrored = tl.load(row + MIRRORED) > 0
    own_x, own_y = tl.load(row + TAPS_X).to(tl.int32), tl.load(row + TAPS_Y).to(tl.int32)
    y, x = part * ROWS + tl.arange(0, ROWS), tl.arange(0, S)
    y_here, x_here = y < rows, x < columns
    x_there = tl.where(mirrored, columns - 1 - x, x)
    from_x = tl.load(first_x + m * columns + x_there, mask=x_here, other=0)
    from_y = tl.load(first_y + m * rows + y, mask=y_here, other=0)
    here = y_here[:, None] & x_here[None, :]
    clip = m * (frames // of_block) + t // of_block
    for c in range(0, channels):
        plane = pixels + t_there * along_t + c * along_c
        made = tl.zeros([ROWS, S], tl.float32)
        for j in range(0, own_y):
            share_y = tl.load(weight_y + (m * taps_y + j) * rows + y, mask=y_here, other=0.0)
            line = plane + tl.minimum(from_y + j, height - 1) * along_y
            along = tl.zeros([ROWS, S], tl.float32)
            for i in range(0, own_x):
                share_x = tl.load(
                    weight_x + (m * taps_x + i) * columns + x_there, mask=x_here, other=0.0
                )
                column = tl.minimum(from_x + i, width - 1) * along_x
                old = tl.load(line[:, None] + column[None, :], mask=here, other=0)
                along += share_x[None, :] * old.to(tl.float32)
            made += share_y[:, None] * along
        frame = ((clip * channels + c) * of_block + t % of_block).to(tl.int64) * rows * columns
        at = out + frame + y[:, None] * columns + x[None, :]
        tl.store(at, _level(made).to(tl.uint8), mask=here)


# ── colour


@triton.jit
def _grey(red, green, blue):
    return RED * red + GREEN * green + BLUE * blue


@triton.jit
def _away(start, x, factor):
    # As torch.lerp: exact at both ends.
    near = start + factor * (x - start)
    far = x - (x - start) * (1.0 - factor)
    return _clamped(tl.where(factor < 0.5, near, far))


@triton.jit
def _sector(place, hue):
    k = place + hue
    k = k - 6.0 * tl.floor(k / 6.0)
    return tl.minimum(tl.maximum(tl.minimum(k, 4.0 - k), 0.0), 1.0)


@triton.jit
def _changed(red, green, blue, operation, row, mean):
    """Applies one of the four colour changes, or none."""
    if operation == BRIGHTNESS:
        factor = tl.load(row + BRIGHTNESS)
        red, green, blue = _clamped(red * factor), _clamped(green * factor), _clamped(blue * factor)
    elif operation == CONTRAST:
        factor = tl.load(row + CONTRAST)
        red = _away(mean, red, factor)
        green = _away(mean, green, factor)
        blue = _away(mean, blue, factor)
    elif operation == SATURATION:
        factor = tl.load(row + SATURATION)
        grey = _grey(red, green, blue)
        red = _away(grey, red, factor)
        green = _away(grey, green, factor)
        blue = _away(grey, blue, factor)
    elif operation == HUE:
        value = tl.maximum(tl.maximum(red, green), blue)
        chroma = value - tl.minimum(tl.minimum(red, green), blue)
        safe = tl.maximum(chroma, 1e-6)
        # In sixths of a turn, by which channel is the largest.
        hue = tl.where(
            value == red,
            (green - blue) / safe,
            tl.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
        )
        hue = hue + 6.0 * tl.load(row + HUE)
        red = value - chroma * _sector(5.0, hue)
        green = value - chroma * _sector(3.0, hue)
        blue = value - chroma * _sector(1.0, hue)
    return red, green, blue


@triton.jit
def _replicated(red, green, blue, row):
    """Sets all channels to the grey one, if there is one."""
    which = tl.load(row + GREY)
    one = tl.where(which == 0.0, red, tl.where(which == 1.0, green, blue))
    red = tl.where(which >= 0.0, one, red)
    green = tl.where(which >= 0.0, one, green)
    blue = tl.where(which >= 0.0, one, blue)
    return red, green, blue


@triton.jit
def _film(x, levels, row, f, channels, of_clip, pixels, p, here):
    """Loads red, green and blue of a frame of clips [M, C, T, S·S], shuffled as the row says."""
    red = _channel(x, levels, row + CHANNELS, f, channels, of_clip, pixels, p, here)
    green = _channel(x, levels, row + CHANNELS + 1, f, channels, of_clip, pixels, p, here)
    blue = _channel(x, levels, row + CHANNELS + 2, f, channels, of_clip, pixels, p, here)
    return red, green, blue


@triton.jit
def _channel(x, levels, which, f, channels, of_clip, pixels, p, here):
    """Loads one of three channels; `levels` has its stored channel and its table of levels."""
    told = levels + tl.load(which).to(tl.int32) * (1 + LEVELS)
    plane = (f // of_clip * channels + tl.load(told).to(tl.int32)) * of_clip + f % of_clip
    stored = tl.load(x + plane.to(tl.int64) * pixels + p, mask=here, other=0)
    return tl.load(told + 1 + stored.to(tl.int32), mask=here, other=0.0)


@triton.jit
def means(
    x, levels, changes, mean, channels, of_clip, of_row, pixels,
    GREY_FIRST: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Computes the mean grey of every frame [F] just before its contrast is changed.

    A program works on one frame.
    """
    f = tl.program_id(0)
    row = changes + (f // of_row) * CHANGE
    until = tl.load(row + CONTRAST_PLACE)
    if until < NOWHERE:
        total = tl.zeros([P], tl.float32)
        for begin in range(0, pixels, P):
            p = begin + tl.arange(0, P)
            here = p < pixels
            red, green, blue = _film(x, levels, row, f, channels, of_clip, pixels, p, here)
            if GREY_FIRST:
                red, green, blue = _replicated(red, green, blue, row)
            for place in tl.static_range(4):
                operation = tl.where(until > place, tl.load(row + ORDER + place), NOTHING)
                red, green, blue = _changed(red, green, blue, operation.to(tl.int32), row, 0.0)
            total += tl.where(here, _grey(red, green, blue), 0.0)
        tl.store(mean + f, tl.sum(total, axis=0) / pixels)


@triton.jit
def _place_of(f, of_clip, count, samples):
    """Returns a frame's place in the network input; with samples > 0 clips come before samples."""
    clip, t = f // of_clip, f % of_clip
    if samples > 0:
        clip = (clip % count) * samples + clip // count
    return clip.to(tl.int64) * of_clip + t


@triton.jit(do_not_specialize=["count", "samples"])
def change_colour(
    x, levels, changes, mean, places, unblurred, out, scale, shift,
    channels, of_clip, of_row, pixels, count, samples,
    GREY_FIRST: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Changes the colour of clips [M, C, T, S, S].

    A frame that is not blurred is written as network input [M, T, S, S, 3], a frame that is blurred
    into `unblurred` [., 3, S, S].

    Args:
        levels: for each channel of the picture the number of the clips' channel it comes from, and
            its value for each level [3, 1 + 256].
        places: of each frame in `unblurred`; −1 where it is not blurred.
        scale, shift: of each channel, from values to network input.
    """
    f, part = _frame_and_part(tl.program_id(0), pixels, P)
    row = changes + (f // of_row) * CHANGE
    p = part * P + tl.arange(0, P)
    here = p < pixels
    red, green, blue = _film(x, levels, row, f, channels, of_clip, pixels, p, here)
    if GREY_FIRST:
        red, green, blue = _replicated(red, green, blue, row)
    of_frame = tl.load(mean + f)
    for place in tl.static_range(4):
        operation = tl.load(row + ORDER + place).to(tl.int32)
        red, green, blue = _changed(red, green, blue, operation, row, of_frame)
    if not GREY_FIRST:
        red, green, blue = _replicated(red, green, blue, row)
    picture = tl.load(places + f)
    if picture < 0:
        at = out + (_place_of(f, of_clip, count, samples) * pixels + p) * 3
        tl.store(at, red * tl.load(scale) + tl.load(shift), mask=here)
        tl.store(at + 1, green * tl.load(scale + 1) + tl.load(shift + 1), mask=here)
        tl.store(at + 2, blue * tl.load(scale + 2) + tl.load(shift + 2), mask=here)
    else:
        at = unblurred + picture.to(tl.int64) * 3 * pixels + p
        tl.store(at, red, mask=here)
        tl.store(at + pixels, green, mask=here)
        tl.store(at + 2 * pixels, blue, mask=here)


@triton.jit(do_not_specialize=["taps", "count", "samples"])
def filter_side(
    x, frames, filters, first, weight, out, scale, shift, taps, size, of_clip, count, samples,
    LAST: tl.constexpr, ROWS: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Filters pictures [., 3, S, S] along x into pictures, or, if LAST, along y into network input.

    Args:
        frames, filters: numbers of each picture's frame and of its filter.
        first, weight: of each filter, [., S] and [., K, S].
    """
    # Channels are the fastest index of programs: three of them together write consecutive memory.
    c = tl.program_id(0) % 3
    picture, part = _frame_and_part(tl.program_id(0) // 3, size, ROWS)
    which = tl.load(filters + picture)
    row, column = part * ROWS + tl.arange(0, ROWS), tl.arange(0, S)
    row_here, column_here = row < size, column < size
    here = row_here[:, None] & column_here[None, :]
    plane = (picture.to(tl.int64) * 3 + c) * size * size
    made = tl.zeros([ROWS, S], tl.float32)
    if LAST:
        begin = tl.load(first + which * size + row, mask=row_here, other=0)
    else:
        begin = tl.load(first + which * size + column, mask=column_here, other=0)
    for i in range(0, taps):
        of_tap = weight + (which * taps + i) * size
        if LAST:
            share = tl.load(of_tap + row, mask=row_here, other=0.0)[:, None]
            at = (begin + i)[:, None] * size + column[None, :]
        else:
            share = tl.load(of_tap + column, mask=column_here, other=0.0)[None, :]
            at = row[:, None] * size + (begin + i)[None, :]
        made += share * tl.load(x + plane + at, mask=here, other=0.0)
    at = row[:, None] * size + column[None, :]
    if LAST:
        frame = _place_of(tl.load(frames + picture), of_clip, count, samples)
        made = made * tl.load(scale + c) + tl.load(shift + c)
        tl.store(out + (frame * size * size + at) * 3 + c, made, mask=here)
    else:
        tl.store(out + plane + at, made, mask=here)


# ── other views


@triton.jit(do_not_specialize=["count", "samples"])
def look_up(
    x, shown, out, channels, of_clip, pixels, count, samples, P: tl.constexpr
):  # fmt: skip
    """Turns clips [M, C, T, S, S] into network input [M, T, S, S, C] by a table [C, 256]."""
    f, part = _frame_and_part(tl.program_id(0), pixels, P)
    p = part * P + tl.arange(0, P)
    here = p < pixels
    clip, t = f // of_clip, f % of_clip
    at = out + (_place_of(f, of_clip, count, samples) * pixels + p) * channels
    for c in range(0, channels):
        plane = ((clip * channels + c) * of_clip + t).to(tl.int64) * pixels
        level = tl.load(x + plane + p, mask=here, other=0).to(tl.int32)
        tl.store(at + c, tl.load(shown + c * LEVELS + level, mask=here, other=0.0), mask=here)
