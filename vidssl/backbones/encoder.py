"""The encoder: a backbone with what is needed to know what to feed it.

Legend: B clips, N blocks, C channels, T frames, D backbone width, P projection width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones.s3d import S3D
from vidssl.backbones.tiny import Tiny
from vidssl.errors import UsageError, nearest_name

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "s3d": S3D,
    "tiny": Tiny,
}


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is made of and what it eats.

    Attributes:
        view: name of the view it reads (its to_float gives the network's input).
        backbone: an entry of :data:`BACKBONES`.
        channels: of the input.
        frames, stride, size: a clip is `frames` frames, `stride` apart, `size`×`size` pixels.
        project: width of the projection head's output; None: no head.
    """

    view: str
    backbone: str
    channels: int
    frames: int
    stride: int
    size: int
    project: int | None = 128


class Encoder(nn.Module):
    """backbone → global average pool → MLP head → unit length (CoCLR §3, MoCo v2 head)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        if spec.backbone not in BACKBONES:
            raise UsageError(
                f"there is no backbone {spec.backbone}{nearest_name(spec.backbone, BACKBONES)}; "
                f"there are {', '.join(BACKBONES)}"
            )
        self.spec = spec
        self.backbone = BACKBONES[spec.backbone](spec.channels)
        self.dim: int = self.backbone.dim  # type: ignore[assignment]
        self.head = _projection_head(self.dim, spec.project) if spec.project else None
        self.half_precision = False

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """Gives the backbone's feature map [B, D, t, h, w].

        With `half_precision` the backbone alone runs under bf16 autocast: heads, similarities and
        losses stay in float32.
        """
        with torch.autocast(x_BCTHW.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.backbone(x_BCTHW)

    def pool(self, x_BCTHW: Tensor) -> Tensor:
        """Gives the feature map's mean over time and space [B, D], in float32."""
        return self.features(x_BCTHW).float().mean(dim=(2, 3, 4))

    def project(self, x_BCTHW: Tensor) -> Tensor:
        """Gives unit vectors [B, P]."""
        if self.head is None:
            raise TypeError("this encoder has no projection head")
        return F.normalize(self.head(self.pool(x_BCTHW)).float(), dim=1)

    def embed(self, x_BNCTHW: Tensor) -> Tensor:
        """Gives one window's embedding [B, D]: pooled features, averaged over its N blocks."""
        blocks = x_BNCTHW.shape[1]
        pooled = self.pool(x_BNCTHW.flatten(0, 1))
        return pooled.unflatten(0, (-1, blocks)).mean(1)


def _projection_head(dim: int, project: int) -> nn.Module:
    # The published head is two 1×1×1 convolutions on the pooled map; these are the same maps.
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, project))
