"""The encoder: a backbone with its projection head or context, and the spec of its input.

Legend: B clips, N blocks, C channels, T frames, D backbone width, P projection width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones.dpc_context import DenseContext
from vidssl.backbones.motion import Motion, MotionS3D
from vidssl.backbones.r2d3d import r2d3d_18, r2d3d_34, r2d3d_50
from vidssl.backbones.r2plus1d import R2Plus1D
from vidssl.backbones.s3d import S3D
from vidssl.backbones.tiny import Tiny
from vidssl.backbones.torchvision_resnets import r2plus1d_18, r3d_18
from vidssl.base.errors import UsageError, nearest_name
from vidssl.base.stored_json import Bounds, DamagedFile, bounded, record

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "s3d": S3D,
    "r2plus1d": R2Plus1D,
    "r2plus1d_18": r2plus1d_18,
    "r3d_18": r3d_18,
    "r2d3d_18": r2d3d_18,
    "r2d3d_34": r2d3d_34,
    "r2d3d_50": r2d3d_50,
    "tiny": Tiny,
    "motion": Motion,
    "motion+s3d": MotionS3D,
}
CONTEXTS: dict[str, Callable[[int], nn.Module]] = {"gru": DenseContext}
NAME = r"[^\x00-\x1f/\\]{1,100}"  # of a view, which may be a user's own
MOST_VALUES = 1 << 30  # of a clip: 4 GiB in float32, and a thousand times those of any paper


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
        head_norm: BatchNorm between the two layers of the head (Chen et al. 2020, SimCLR); no
            published video method here has it.
        blocks: consecutive blocks in a clip; methods that compare whole clips have one.
        context: an entry of :data:`CONTEXTS`, a network over the blocks; None: none.
        presentation: how the view is shown to the network: "native", or as a published
            implementation did (:meth:`vidssl.views.View.present`).
    """

    view: str = field(metadata=bounded(pattern=NAME))
    backbone: str
    channels: int = field(metadata=bounded(1, 1024))
    frames: int = field(metadata=bounded(1, 10_000))
    stride: int = field(metadata=bounded(1, 10_000))
    size: int = field(metadata=bounded(1, 10_000))
    project: int | None = field(default=128, metadata=bounded(1, 65_536))
    blocks: int = field(default=1, metadata=bounded(1, 1_000))
    context: str | None = None
    presentation: str = field(default="native", metadata=bounded(pattern=NAME))
    head_norm: bool = False

    @classmethod
    def from_file(cls, value: Any, path: Path) -> EncoderSpec:
        """Returns the spec that an encoder's file holds as JSON.

        Raises:
            DamagedFile: a field is missing, unknown, of another type or out of bounds, or there is
                no such backbone or context.
        """
        spec = record(cls, value, path)
        if (problem := spec.problem()) is not None:
            raise DamagedFile(f"{path} is damaged: {problem}")
        return spec

    def problem(self) -> str | None:
        """Returns why no encoder can be built as the spec says, or None."""
        for each in fields(self):
            bounds: Bounds | None = each.metadata.get("bounds")
            value = getattr(self, each.name)
            if bounds is not None and (problem := bounds.problem(value)) is not None:
                return f"{each.name} {problem}, not {value!r:.60}"
        if self.backbone not in BACKBONES:
            return (
                f"there is no backbone {self.backbone:.60}{nearest_name(self.backbone, BACKBONES)}"
            )
        if self.context is not None and self.context not in CONTEXTS:
            return f"there is no context {self.context:.60}"
        values = self.channels * self.window * self.size**2
        if values > MOST_VALUES:
            return f"a clip of {values:.2g} values is more than {MOST_VALUES:.2g}"
        return None

    @property
    def window(self) -> int:
        """Frames in a clip, all blocks together."""
        return self.blocks * self.frames

    def as_dict(self) -> dict[str, Any]:
        """Returns the spec as plain data.

        Fields that were added later are left out where they have their default, so that an older
        encoder keeps its bytes and its digest.
        """
        later = {"blocks": 1, "context": None, "presentation": "native", "head_norm": False}
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
        if (problem := spec.problem()) is not None:
            raise UsageError(f"no encoder can be built: {problem}")
        self.spec = spec
        self.backbone = BACKBONES[spec.backbone](spec.channels)
        self.dim: int = self.backbone.dim  # type: ignore[assignment]
        self.head = _projection_head(self.dim, spec) if spec.project else None
        self.context = CONTEXTS[spec.context](self.dim) if spec.context else None
        self.half_precision = False

    @property
    def fixed_part(self) -> Callable[[Tensor], Tensor] | None:
        """What its backbone computes first and never learns; None where it has no such part.

        The backbone takes clips, and what this returns of them.
        """
        return getattr(self.backbone, "fixed_part", None)

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


def _projection_head(dim: int, spec: EncoderSpec) -> nn.Module:
    # The published head is two 1×1×1 convolutions on the pooled map; these are the same maps.
    assert spec.project is not None
    norm = [nn.BatchNorm1d(dim)] if spec.head_norm else []
    return nn.Sequential(nn.Linear(dim, dim), *norm, nn.ReLU(), nn.Linear(dim, spec.project))
