"""A small (2+1)D network for a CPU.

Each block is a spatial and then a temporal convolution. Unlike S3D's, the first two blocks have
nothing between the pair, so that each is one space-time filter of low rank: such a filter sees
a moving edge directly, and the network learns motion from RGB in less than half of the epochs
(docs/results.md). The stem takes large patches at stride 4, because most time goes into what is
done at full size, and looks over five frames.

Shapes: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import nn


class SpaceTime(nn.Sequential):
    """Spatial (1,k,k), then temporal (t,1,1) convolution, BatchNorm and ReLU.

    [B,C,T,H,W] → [B,width,T/step,H/stride,W/stride], rounded up. `middle` channels lie between
    the two convolutions; `bend` puts BatchNorm and ReLU there as well, as S3D does.
    """

    def __init__(
        self,
        channels: int,
        middle: int,
        width: int,
        space: int,
        time: int,
        stride: int,
        step: int = 1,
        bend: bool = False,
    ) -> None:
        spatial = nn.Conv3d(
            channels,
            middle,
            (1, space, space),
            stride=(1, stride, stride),
            padding=(0, space // 2, space // 2),
            bias=False,
        )
        temporal = nn.Conv3d(
            middle,
            width,
            (time, 1, 1),
            stride=(step, 1, 1),
            padding=(time // 2, 0, 0),
            bias=False,
        )
        between = _bent(middle) if bend else []
        super().__init__(spatial, *between, temporal, *_bent(width))


def _bent(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]


class Tiny(nn.Module):
    """Three space-time blocks of 48 to 128 channels; T of 4 or more, sides of 32 or more."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.dim = 128
        self.blocks = nn.Sequential(
            SpaceTime(channels, 16, 48, space=7, time=5, stride=4),
            SpaceTime(48, 48, 64, space=3, time=5, stride=2),
            SpaceTime(64, 128, self.dim, space=3, time=3, stride=2, step=2, bend=True),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        # Channels last: forward and backward on a CPU take two thirds of the time.
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [B,dim,T/2,H/16,W/16] of clips [B,C,T,H,W], sizes rounded up."""
        return self.blocks(x.contiguous(memory_format=torch.channels_last_3d))
