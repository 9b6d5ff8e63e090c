"""A small (2+1)D network for a CPU.

Each block is a spatial and then a temporal convolution, as in S3D, with few and
narrow layers. The stem takes large patches at stride 4 and looks over five frames,
because that is where motion is cheapest to see: the frames' size falls by 16 at once,
and a moving edge still differs from frame to frame.

Shapes: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import nn


class SpaceTime(nn.Module):
    """Spatial (1,k,k), then temporal (k,1,1) convolution, each with BatchNorm and ReLU."""

    def __init__(
        self,
        channels: int,
        width: int,
        space: int,
        time: int,
        stride: int,
        step: int,
        middle: int = 0,
    ):
        super().__init__()
        middle = middle or width
        self.space = nn.Conv3d(
            channels,
            middle,
            (1, space, space),
            (1, stride, stride),
            (0, space // 2, space // 2),
            bias=False,
        )
        self.space_norm = nn.BatchNorm3d(middle)
        self.time = nn.Conv3d(
            middle, width, (time, 1, 1), (step, 1, 1), (time // 2, 0, 0), bias=False
        )
        self.time_norm = nn.BatchNorm3d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,T,H,W] → [B,width,T/step,H/stride,W/stride], rounded up."""
        x = torch.relu_(self.space_norm(self.space(x)))
        return torch.relu_(self.time_norm(self.time(x)))


class Tiny(nn.Module):
    """Three space-time blocks of 32 to 128 channels; T of 4 or more, sides of 32 or more."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.dim = 128
        self.blocks = nn.Sequential(
            SpaceTime(channels, 32, space=7, time=5, stride=4, step=1, middle=24),
            SpaceTime(32, 64, space=3, time=5, stride=2, step=1),
            SpaceTime(64, self.dim, space=3, time=3, stride=2, step=2),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        # Channels last: a forward and backward pass on a CPU takes two thirds of the time.
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [B,dim,T/2,H/16,W/16] of clips [B,C,T,H,W], rounded up."""
        return self.blocks(x.contiguous(memory_format=torch.channels_last_3d))
