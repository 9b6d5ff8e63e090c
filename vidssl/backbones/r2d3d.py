"""2D3D-ResNets: two stages of 2D convolutions, then two of 3D convolutions over three frames.

18 and 34 layers are those of DPC and CoCon (Han et al. 2019; Rai et al. 2021), whose fourth stage
is 256 wide and ends without a ReLU; 50 layers is that of CoCLR's code, 2048 wide. Modules are
named as in every ResNet, and so are tensors.

Shapes: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn


def _conv(channels: int, width: int, kernel: Sequence[int], strides: Sequence[int]) -> nn.Conv3d:
    return nn.Conv3d(
        channels,
        width,
        tuple(kernel),
        stride=tuple(strides),
        padding=tuple(k // 2 for k in kernel),
        bias=False,
    )


def _shortcut(channels: int, width: int, strides: Sequence[int]) -> nn.Module | None:
    if channels == width and all(s == 1 for s in strides):
        return None
    return nn.Sequential(_conv(channels, width, (1, 1, 1), strides), nn.BatchNorm3d(width))


class BasicBlock(nn.Module):
    """Two 1×3×3 (or 3×3×3) convolutions beside a shortcut; `bend`: with a ReLU at the end."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, time: int, strides: Sequence[int], bend: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, (time, 3, 3), strides)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv(width, width, (time, 3, 3), (1, 1, 1))
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = _shortcut(channels, width, strides)
        self.relu = nn.ReLU(inplace=True)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))
        return self.relu(y) if self.bend else y


class Bottleneck(nn.Module):
    """1×1×1 (or 3×1×1), 1×3×3 and 1×1×1 convolutions beside a shortcut, four times as wide."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, time: int, strides: Sequence[int], bend: bool = True
    ) -> None:
        super().__init__()
        wide = width * self.expansion
        self.conv1 = _conv(channels, width, (time, 1, 1), (1, 1, 1))
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv(width, width, (1, 3, 3), strides)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = _conv(width, wide, (1, 1, 1), (1, 1, 1))
        self.bn3 = nn.BatchNorm3d(wide)
        self.downsample = _shortcut(channels, wide, strides)
        self.relu = nn.ReLU(inplace=True)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        return self.relu(y) if self.bend else y


class R2D3D(nn.Module):
    """Stem, max pool over space, four stages; the last two convolve over three frames.

    Args:
        channels: C.
        block: of the stages.
        depths: blocks in each stage.
        widths: of each stage.
        stem: kernel and stride in time of the first convolution.
        steps: strides in time of the four stages; those in space are 1, 2, 2, 2.
        bend: whether the last block ends in a ReLU.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        stem: tuple[int, int],
        steps: Sequence[int],
        bend: bool,
    ) -> None:
        super().__init__()
        kernel, step = stem
        self.conv1 = _conv(channels, 64, (kernel, 7, 7), (step, 2, 2))
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        before = 64
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            space = 1 if number == 1 else 2
            time = 3 if number > 2 else 1
            blocks: list[nn.Module] = []
            for i in range(depth):
                strides = (steps[number - 1], space, space) if i == 0 else (1, 1, 1)
                last = number == len(depths) and i + 1 == depth
                blocks.append(block(before, width, time, strides, bend or not last))
                before = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.dim = before
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Returns the feature map [B, dim, T/4, H/32, W/32] of clips [B, C, T, H, W], rounded up.

        With 50 layers time is halved once, by the stem.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return x


_dense = partial(
    R2D3D,
    block=BasicBlock,
    widths=(64, 128, 256, 256),
    stem=(1, 1),
    steps=(1, 1, 2, 2),
    bend=False,
)
r2d3d_18 = partial(_dense, depths=(2, 2, 2, 2))
r2d3d_34 = partial(_dense, depths=(3, 4, 6, 3))
# Its published code takes the last block before its ReLU and applies one after: here it stays in.
r2d3d_50 = partial(
    R2D3D,
    block=Bottleneck,
    depths=(3, 4, 6, 3),
    widths=(64, 128, 256, 512),
    stem=(5, 2),
    steps=(1, 1, 1, 1),
    bend=True,
)
