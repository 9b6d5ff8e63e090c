"""R(2+1)D of ten layers (Toering et al. 2022, ViCC), after Tran et al. 2018.

Every convolution is a spatial one, BatchNorm and ReLU, and a temporal one. torchvision's
r2plus1d_18 is another network: two blocks per stage, other widths, a plain shortcut.

Shapes: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn


class FactoredConv(nn.Module):
    """Spatial (1,k,k), BatchNorm, ReLU, temporal (t,1,1): [B,C,T,H,W] → [B,width,T',H',W'].

    The channels between keep the parameters of the t×k×k convolution that the two stand for:
    floor(t·k²·C·width / (k²·C + t·width)) (Tran et al. 2018, §3.5).
    """

    def __init__(
        self, channels: int, width: int, space: int, time: int, strides: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        middle = (time * space**2 * channels * width) // (space**2 * channels + time * width)
        step, stride = strides
        self.spatial = nn.Conv3d(
            channels,
            middle,
            (1, space, space),
            stride=(1, stride, stride),
            padding=(0, space // 2, space // 2),
            bias=False,
        )
        self.norm = nn.BatchNorm3d(middle)
        self.relu = nn.ReLU(inplace=True)
        self.temporal = nn.Conv3d(
            middle,
            width,
            (time, 1, 1),
            stride=(step, 1, 1),
            padding=(time // 2, 0, 0),
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.relu(self.norm(self.spatial(x))))


class Block(nn.Module):
    """Two factored convolutions beside a shortcut, which is factored too where sizes change."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FactoredConv(channels, width, 3, 3, (stride, stride))
        self.norm1 = nn.BatchNorm3d(width)
        self.conv2 = FactoredConv(width, width, 3, 3)
        self.norm2 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                FactoredConv(channels, width, 1, 1, (stride, stride)), nn.BatchNorm3d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class R2Plus1D(nn.Module):
    """Stem and four stages of one block: [B,C,T,H,W] → [B,512,T/8,H/16,W/16], rounded up."""

    dim = 512

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            FactoredConv(channels, 64, 7, 3, (1, 2)), nn.BatchNorm3d(64), nn.ReLU(inplace=True)
        )
        widths, strides = (64, 64, 128, 256, 512), (1, 2, 2, 2)
        self.blocks = nn.Sequential(
            *(Block(widths[i], widths[i + 1], stride) for i, stride in enumerate(strides))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))
