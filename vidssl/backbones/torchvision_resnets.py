"""torchvision's video ResNets of 18 layers without their tails (Tran et al. 2018)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn


class TorchvisionResNet(nn.Module):
    """Stem and four stages of two blocks: [B,C,T,H,W] → [B,512,T/8,H/16,W/16], rounded up.

    Args:
        channels: C; the first convolution is made for that many.
        name: in torchvision.models.video.
    """

    dim = 512

    def __init__(self, channels: int = 3, *, name: str) -> None:
        super().__init__()
        # Here, since loading torchvision takes as long as loading torch.
        from torchvision.models import video

        whole = getattr(video, name)()
        stem = whole.get_submodule("stem")
        if channels != 3:
            stem[0] = _for_channels(stem[0], channels)  # type: ignore[index, operator]
        self.stem = stem
        self.layers = nn.Sequential(*(whole.get_submodule(f"layer{n}") for n in (1, 2, 3, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.stem(x))


def _for_channels(conv: nn.Conv3d, channels: int) -> nn.Conv3d:
    made = nn.Conv3d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


r2plus1d_18 = partial(TorchvisionResNet, name="r2plus1d_18")
r3d_18 = partial(TorchvisionResNet, name="r3d_18")
