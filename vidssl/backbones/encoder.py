"""The encoder: a backbone with its projection head or context, and the spec of its input.

Legend: B clips, N blocks, C channels, T frames, D backbone width, P projection width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones.dpc_context import DenseContext
from vidssl.backbones.r2d3d import r2d3d_18, r2d3d_34, r2d3d_50
from vidssl.backbones.r2plus1d import R2Plus1D
from vidssl.backbones.s3d import S3D
from vidssl.backbones.tiny import Tiny
from vidssl.backbones.torchvision_resnets import r2plus1d_18, r3d_18
from vidssl.base.errors import UsageError, nearest_name

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "s3d": S3D,
    "r2plus1d": R2Plus1D,
    "r2plus1d_18": r2plus1d_18,
    "r3d_18": r3d_18,
    "r2d3d_18": r2d3d_18,
    "r2d3d_34": r2d3d_34,
    "r2d3d_50": r2d3d_50,
    "tiny": Tiny,
}
CONTEXTS: dict[str, Callable[[int], nn.Module]] = {"gru": DenseContext}


def check_backbone(name: str) -> None:
    """Checks that there is such a backbone.

    Raises:
        UsageError: there is none; the sentence names the nearest.
    """
    if name not in BACKBONES:
        raise UsageError(
            f"there is no backbone {name}{nearest_name(name, BACKBONES)}; "
            f"there are {', '.join(BACKBONES)}"
        )


@dataclass(frozen=True)
class EncoderSpec:
    """The parts of an encoder, and the clips it takes.

    Attributes:
        view: name of the view it takes.
        backbone: an entry of :data:`BACKBONES`.
        channels: of the input.
        frames, stride, size: a block is `frames` frames, `stride` apart, `size`×`size` pixels.
        project: width of the projection head's output; None: no head.
        blocks: consecutive blocks in a clip; methods that compare whole clips have one.
        context: an entry of :data:`CONTEXTS`, a network over the blocks; None: none.
        presentation: how the view is shown to the network: "native", or as a published
            implementation did (:meth:`vidssl.views.View.present`).
    """

    view: str
    backbone: str
    channels: int
    frames: int
    stride: int
    size: int
    project: int | None = 128
    blocks: int = 1
    context: str | None = None
    presentation: str = "native"

    @property
    def window(self) -> int:
        """Frames in a clip, all blocks together."""
        return self.blocks * self.frames

    def as_dict(self) -> dict[str, Any]:
        """Returns the spec as plain data.

        Fields that were added later are left out where they have their default, so that an older
        encoder keeps its bytes and its digest.
        """
        later = {"blocks": 1, "context": None, "presentation": "native"}
        whole = asdict(self)
        return {k: v for k, v in whole.items() if k not in later or v != later[k]}


class Encoder(nn.Module):
    """backbone → global average pool → MLP head → unit length (CoCLR §3, MoCo v2 head).

    With a context, that network takes the feature maps of consecutive blocks (DPC §3), and there is
    no head.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        check_backbone(spec.backbone)
        if spec.context is not None and spec.context not in CONTEXTS:
            raise UsageError(f"there is no context {spec.context}; there is {', '.join(CONTEXTS)}")
        self.spec = spec
        self.backbone = BACKBONES[spec.backbone](spec.channels)
        self.dim: int = self.backbone.dim  # type: ignore[assignment]
        self.head = _projection_head(self.dim, spec.project) if spec.project else None
        self.context = CONTEXTS[spec.context](self.dim) if spec.context else None
        self.half_precision = False

    def drop_head(self) -> None:
        """Removes the projection head; pooled features and the context stay."""
        self.head = None
        self.spec = replace(self.spec, project=None)

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """Returns the backbone's feature map [B, D, t, h, w].

        With `half_precision` the backbone alone runs under bf16 autocast: heads, similarities and
        losses stay in float32.
        """
        with torch.autocast(x_BCTHW.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.backbone(x_BCTHW)

    def pool(self, x_BCTHW: Tensor) -> Tensor:
        """Returns the feature map's mean over time and space [B, D], in float32."""
        return self.features(x_BCTHW).float().mean(dim=(2, 3, 4))

    def block_maps(self, x_BNCTHW: Tensor) -> Tensor:
        """Returns every block's feature map, averaged over time [B, N, D, h, w], in float32."""
        clips, blocks = x_BNCTHW.shape[:2]
        maps = self.features(x_BNCTHW.flatten(0, 1)).float().mean(dim=2)
        return maps.unflatten(0, (clips, blocks))

    def project(self, x_BCTHW: Tensor) -> Tensor:
        """Returns unit vectors [B, P]."""
        if self.head is None:
            raise TypeError("this encoder has no projection head")
        return F.normalize(self.head(self.pool(x_BCTHW)).float(), dim=1)

    def embed(self, x_BNCTHW: Tensor) -> Tensor:
        """Returns one window's embedding [B, D]: pooled features, averaged over its N blocks.

        The context is not used, so that encoders of all methods can be compared.
        """
        blocks = x_BNCTHW.shape[1]
        pooled = self.pool(x_BNCTHW.flatten(0, 1))
        return pooled.unflatten(0, (-1, blocks)).mean(1)


def _projection_head(dim: int, project: int) -> nn.Module:
    # The published head is two 1×1×1 convolutions on the pooled map; these are the same maps.
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, project))
