"""Networks above fixed motion maps: a small one for a CPU and for few clips, and S3D beside them.

A network that must find motion in pixels learns little from a few hundred clips, even with labels;
the same network above motion maps learns from them (docs/results.md).

Shapes: B clips, C channels, T frames, H and W pixels, M maps, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones.motion_stem import MotionStem
from vidssl.backbones.s3d import S3D
from vidssl.backbones.tiny import SpaceTime

GRID = (4, 6, 6)  # averages of the maps that the network sees: over time, height and width


class Motion(nn.Module):
    """Motion maps, averaged on a grid of 4×6×6, and two (2+1)D blocks of 64 and 128 channels.

    [B, C, T, H, W] → [B, 128, 1, 1, 1]; T of 2 or more, sides of 8 or more.
    """

    dim = 128

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = MotionStem(channels)
        self.norm = nn.BatchNorm3d(self.stem.channels)
        self.block1 = SpaceTime(self.stem.channels, 64, 64, space=3, time=3, stride=1, bend=True)
        self.pool = nn.MaxPool3d(2)
        self.block2 = _Unpadded(64, self.dim)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last_3d)  # a third faster on a CPU

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Returns features [B, 128, 1, 1, 1] of clips, or of what `fixed_part` made of them."""
        prepared = x_BCTHW.shape[-3:] == GRID  # no clip: sides are 8 or more
        maps_BMTHW = x_BCTHW if prepared else self.fixed_part(x_BCTHW)
        maps_BMTHW = maps_BMTHW.contiguous(memory_format=torch.channels_last_3d)
        return self.block2(self.pool(self.block1(self.norm(maps_BMTHW))))

    @torch.no_grad()
    def fixed_part(self, x_BCTHW: Tensor) -> Tensor:
        """Returns what is not learned: the averages of the maps [B, M, 4, 6, 6]."""
        return on_grid(self.stem(x_BCTHW))


class _Unpadded(nn.Sequential):
    """As :class:`SpaceTime`, without padding: [B, C, 2, 3, 3] → [B, width, 1, 1, 1]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv3d(channels, width, (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.Conv3d(width, width, (2, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )


class MotionS3D(nn.Module):
    """S3D with the motion maps of its input beside its first features, at a quarter of the size.

    [B, C, T, H, W] → [B, 1024, T/8, H/32, W/32]. S3D's first two layers make 64 channels of the
    clip; the maps are added to them by a 1×1×1 convolution that starts at zero: the network begins
    as S3D, also where it is given S3D's published weights.
    """

    dim = 1024

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = MotionStem(channels)
        self.norm = nn.BatchNorm3d(self.stem.channels)
        self.mix = nn.Conv3d(self.stem.channels, 64, 1)
        self.features = S3D(channels).features
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Returns the feature map of clips."""
        with torch.no_grad(), torch.autocast(x_BCTHW.device.type, enabled=False):
            maps = self.stem(x_BCTHW)
        first, rest = self.features[:2], self.features[2:]
        seen = first(x_BCTHW)
        maps = F.interpolate(maps, size=seen.shape[-3:], mode="trilinear", align_corners=False)
        return rest(seen + self.mix(self.norm(maps)))


def on_grid(maps_BMPHW: Tensor) -> Tensor:
    """Returns averages of the maps over the parts of a grid: [B, M, P, H, W] → [B, M, 4, 6, 6]."""
    sizes = maps_BMPHW.shape[-3:]
    time, down, across = (
        _shares(old, new).to(maps_BMPHW) for old, new in zip(sizes, GRID, strict=True)
    )
    x = down @ (maps_BMPHW @ across.T)
    return (time @ x.flatten(-2)).unflatten(-1, GRID[1:])


def _shares(old: int, new: int) -> Tensor:
    """Returns weights [new, old] that average `old` places over `new` equal stretches."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    place = torch.arange(old, dtype=torch.float64)
    end, begin = edges[1:, None], edges[:-1, None]
    inside = torch.minimum(end, place + 1) - torch.maximum(begin, place)
    return (inside.clamp(min=0) * new / old).float()
