"""Fixed motion maps of a clip: energies of motion in eight directions, edges and change.

Nothing here is learned. From RGB the maps are made of its luma alone, without optical flow: normal
flow (the motion along the gradient, Horn and Schunck 1981) and the least-squares flow of small
windows (Lucas and Kanade 1981). A view that is flow already has its energies taken from it. Other
views have the edges and the change of each channel.

Legend: B clips, C channels, T frames, H and W pixels, M maps, P pairs of frames (T − 1), N = B·P.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from vidssl.base.imagenet import IMAGENET_MEAN, IMAGENET_STD

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601
CELL = 4  # pixels of a cell's side: maps are averages over cells
SLOW = 0.2  # pixels per frame; what is slower counts as still
NORMAL_FLOOR, NORMAL_MOST = 2e-4, 4.0  # regularisation; longest flow in pixels
WINDOW = 5  # pixels of the side of Lucas and Kanade's window
WINDOW_FLOOR, WINDOW_MOST = 1e-4, 6.0
HALF_TURN = 4  # axes of motion; each has two directions
EPSILON = 1e-6


class MotionStem(nn.Module):
    """Motion maps [B, M, P, H/4, W/4] of clips [B, C, T, H, W] as networks get them.

    Each group of maps is divided by its mean over the clip, and the square root is taken: so a
    clip's contrast and camera speed do not matter, and few strong places do not hide the others.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kinds: dict[int, type[_Maps]] = {3: _RgbMaps, 2: _FlowMaps}
        self.maps = kinds.get(channels, _OtherMaps)(channels)
        self.groups = self.maps.groups

    @property
    def channels(self) -> int:
        """M."""
        return sum(self.groups)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        maps = [_balanced(group) for group in self.maps(x_BCTHW.float())]
        return torch.cat(maps, dim=1)


class _Maps(nn.Module):
    """The groups of maps of one kind of view, not yet balanced.

    Attributes:
        groups: how many maps each group has.
    """

    groups: list[int]

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x_BCTHW: Tensor) -> list[Tensor]:
        """Returns each group [B, M, P, H/4, W/4]."""
        raise NotImplementedError


def _balanced(maps_BMPHW: Tensor) -> Tensor:
    mean = maps_BMPHW.mean(dim=(1, 2, 3, 4), keepdim=True)
    return (maps_BMPHW / (mean + EPSILON)).clamp(min=0).sqrt()  # rounding may go below 0


class _RgbMaps(_Maps):
    """Normal flow, window flow (8 directions and stillness each), edges, change: 23 maps."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.groups = [8, 1, 8, 1, HALF_TURN, 1]
        shares = zip(GREY_WEIGHTS, IMAGENET_STD, IMAGENET_MEAN, strict=True)
        self.luma_scale = [weight * std for weight, std, _ in shares]
        self.luma_shift = sum(w * mean for w, mean in zip(GREY_WEIGHTS, IMAGENET_MEAN, strict=True))

    def forward(self, x_BCTHW: Tensor) -> list[Tensor]:
        red, green, blue = x_BCTHW.unbind(1)
        r, g, b = self.luma_scale
        luma = (red * r).add(green, alpha=g).add(blue, alpha=b).add(self.luma_shift)
        luma = _binomial(luma.contiguous())
        clips, pairs = luma.shape[0], luma.shape[1] - 1
        middle = luma[:, 1:].add(luma[:, :-1]).mul(0.5).flatten(0, 1)
        change = luma[:, 1:].sub(luma[:, :-1]).flatten(0, 1)
        along_x, along_y = _gradients(middle)
        by_normal = _normal_flow(along_x, along_y, change)
        by_window = _window_flow(along_x, along_y, change)
        groups = [*_motion_energies(*by_normal), *_motion_energies(*by_window)]
        groups += [_axis_energies(along_x, along_y), _cells(change.abs()).unsqueeze(1)]
        return [group.unflatten(0, (clips, pairs)).transpose(1, 2) for group in groups]


class _FlowMaps(_Maps):
    """Energies of the flow itself in 8 directions, stillness and the edges of its speed."""

    bound = 20.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.groups = [8, 1, HALF_TURN]

    def forward(self, x_BCTHW: Tensor) -> list[Tensor]:
        clips, frames = x_BCTHW.shape[0], x_BCTHW.shape[2]
        u, v = (x_BCTHW * self.bound).transpose(1, 2).flatten(0, 1).unbind(1)
        edges = _axis_energies(*_gradients((u.square() + v.square() + EPSILON).sqrt()))
        groups = [*_motion_energies(u, v), edges]
        return [group.unflatten(0, (clips, frames)).transpose(1, 2) for group in groups]


class _OtherMaps(_Maps):
    """Level, edges and change of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.groups = [channels, HALF_TURN * channels, channels]

    def forward(self, x_BCTHW: Tensor) -> list[Tensor]:
        clips, channels, frames = x_BCTHW.shape[:3]
        each = x_BCTHW.flatten(0, 2)
        edges = _axis_energies(*_gradients(each)).unflatten(0, (clips, channels, frames))
        level = _cells(each.abs()).unflatten(0, (clips, channels, frames))
        moved = (x_BCTHW[:, :, 1:] - x_BCTHW[:, :, :-1]).abs()
        change = _cells(moved.flatten(0, 2)).unflatten(0, (clips, channels, frames - 1))
        edges = edges.permute(0, 1, 3, 2, 4, 5).flatten(1, 2)
        return [level[:, :, 1:], edges[:, :, 1:], change]


# ── pieces ───────────────────────────────────────────────────────────────────────────────────


def _binomial(x: Tensor) -> Tensor:
    """Blurs [..., H, W] with 1-2-1 along both sides; borders are repeated."""
    return _across(_down(x, _binomial_weights), _binomial_weights)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns central differences of [N, H, W] along x and y; borders are repeated."""
    columns = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    rows = torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)
    along_x = (columns[..., 2:] - columns[..., :-2]) * 0.5
    along_y = (rows[..., 2:, :] - rows[..., :-2, :]) * 0.5
    return along_x, along_y


def _normal_flow(along_x: Tensor, along_y: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """Returns −change·∇ / (|∇|² + floor), limited in each direction."""
    share = -change / (along_x.square() + along_y.square() + NORMAL_FLOOR)
    most = NORMAL_MOST
    return (share * along_x).clamp(-most, most), (share * along_y).clamp(-most, most)


def _window_flow(along_x: Tensor, along_y: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the flow that explains a window's change best (Lucas and Kanade 1981, eq. 10)."""
    products = torch.stack(
        [
            along_x.square(),
            along_y.square(),
            along_x * along_y,
            along_x * change,
            along_y * change,
        ]
    )
    xx, yy, xy, xt, yt = _across(_down(products, _windows), _windows).unbind(0)
    xx, yy = xx + WINDOW_FLOOR, yy + WINDOW_FLOOR
    share = 1 / (xx * yy - xy * xy)
    most = WINDOW_MOST
    u, v = (xy * yt - yy * xt) * share, (xy * xt - xx * yt) * share
    return u.clamp(-most, most), v.clamp(-most, most)


def _motion_energies(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Returns motion [N, H, W] as energies in 8 directions [N, 8, h, w] and stillness [N, 1, h, w].

    Energy in a direction is the mean over a cell of the motion's positive part along it. Of two
    opposite directions it is half of the mean size, plus or minus half of the mean.
    """
    size, mean = _axis_energies(u, v), _along_axes(_cells(u), _cells(v))
    still = _cells((u.square() + v.square() < SLOW**2).to(u.dtype)).unsqueeze(1)
    return torch.cat([size + mean, size - mean], dim=1) * 0.5, still


def _axis_energies(u: Tensor, v: Tensor) -> Tensor:
    """Returns the means over cells of |(u, v) along each of 4 axes|: [N, 4, h, w]."""
    return _cells(_along_axes(u, v).abs())


def _along_axes(u: Tensor, v: Tensor) -> Tensor:
    """Returns (u, v) along the axes at 0, 45, 90 and 135 degrees: [N, 4, H, W]."""
    half = math.sqrt(0.5)
    return torch.stack([u, (u + v) * half, v, (v - u) * half], dim=1)


# Averages are products with matrices of weights: on a CPU several times as fast as pooling.
def _cells(x: Tensor) -> Tensor:
    """Returns the means over cells: [..., H, W] → [..., H/4, W/4]; what is less is left out."""
    height = x.shape[-2] // CELL * CELL
    rows = x[..., :height, :].unflatten(-2, (-1, CELL)).sum(-2)
    return _across(rows, _cell_weights)


def _down(x: Tensor, weights: Callable[[int], Tensor]) -> Tensor:
    """Returns the weighted averages along H of [..., H, W]."""
    return weights(x.shape[-2]).to(x) @ x


def _across(x: Tensor, weights: Callable[[int], Tensor]) -> Tensor:
    """Returns the weighted averages along W of [..., H, W]."""
    return x @ weights(x.shape[-1]).to(x).T


@lru_cache(maxsize=16)
def _cell_weights(size: int) -> Tensor:
    """Returns the means over cells [size // 4, size] of what is summed over cells the other way."""
    cells = size // CELL
    inside = torch.eye(cells).repeat_interleave(CELL, dim=1) / CELL**2
    return torch.cat([inside, torch.zeros(cells, size - cells * CELL)], dim=1)


@lru_cache(maxsize=16)
def _windows(size: int) -> Tensor:
    """Returns the averages over windows [size, size]; at borders over what lies inside."""
    place = torch.arange(size)
    near = ((place[:, None] - place[None, :]).abs() <= WINDOW // 2).float()
    return near / near.sum(1, keepdim=True)


@lru_cache(maxsize=16)
def _binomial_weights(size: int) -> Tensor:
    """Returns the averages of neighbours as 1-2-1 [size, size]; borders are repeated."""
    place = torch.arange(size)
    weights = torch.zeros(size, size)
    for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        weights[place, (place + offset).clamp(0, size - 1)] += weight
    return weights
