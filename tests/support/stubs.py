"""Small real objects for driving objectives through the engine without video."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones import EncoderSpec
from vidssl.backbones.dpc_context import DenseContext
from vidssl.clips.batch import ClipBatch


class StubEncoder(nn.Module):
    """z = normalise(W x) of flattened clips: the encoder of the reference trajectories."""

    def __init__(self, view: str, weight: Tensor) -> None:
        super().__init__()
        self.spec = EncoderSpec(view, "stub", 1, 1, 1, 1, project=weight.shape[0])
        self.weight = nn.Parameter(weight.clone())
        self.dim, self.context = weight.shape[0], None

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T

    def project(self, x: Tensor) -> Tensor:
        return F.normalize(self.embed(x), dim=1)

    def drop_head(self) -> None:
        """There is none: both are one map."""


class StubBlockEncoder(nn.Module):
    """Block maps [B, N, 8, 2, 2] that are linear in pooled blocks, below a real context."""

    def __init__(self, view: str, blocks: int, channels: int = 3) -> None:
        super().__init__()
        self.spec = EncoderSpec(view, "stub", channels, 1, 1, 1, None, blocks, "gru")
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, channels, generator=generator))
        self.context = DenseContext(8)

    def block_maps(self, x_BNCTHW: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool3d(x_BNCTHW.flatten(0, 1), (1, 2, 2))[:, :, 0]
        z = torch.einsum("dc,bchw->bdhw", self.weight, 10 * pooled)
        return z.unflatten(0, x_BNCTHW.shape[:2])


class FixedBatches:
    """Epochs of the same batches, made by a function of the step in it; remembers nothing."""

    def __init__(self, steps: int, make: Callable[[int], list[ClipBatch]]) -> None:
        self.steps_per_epoch, self.make = steps, make

    def steps(self, begin: int, end: int) -> Iterator[list[ClipBatch]]:
        for step in range(begin, end):
            yield self.make(step % self.steps_per_epoch)
