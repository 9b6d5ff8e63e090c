"""BatchNorm and the ReLU after it as one layer, which moves fewer bytes through a GPU's memory.

The equations, parameters, statistics and names are those of BatchNorm3d and ReLU; how the kernels
go over memory is in :mod:`vidssl.backbones.norm_relu_kernels`.

Legend: B clips, C channels, T frames, H and W places.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vidssl.errors import VidsslError

LAST = torch.channels_last_3d


def fuse_norms(network: nn.Module) -> None:
    """Makes one layer of every BatchNorm3d that a ReLU follows in a sequence.

    Names of parameters and buffers, and the tensors themselves, stay.

    Raises:
        VidsslError: Triton is missing.
    """
    if importlib.util.find_spec("triton") is None:
        raise VidsslError(
            "BatchNorm and ReLU in one need Triton, which this PyTorch came without: "
            "pip install triton"
        )
    for sequence, place in list(_norms_before_relus(network)):
        sequence[place] = NormReLU.like(sequence[place])  # type: ignore[arg-type]
        sequence[place + 1] = nn.Identity()


def _norms_before_relus(network: nn.Module) -> Iterator[tuple[nn.Sequential, int]]:
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            kinds = [type(layer) for layer in sequence]
            for place, pair in enumerate(pairwise(kinds)):
                if pair == (nn.BatchNorm3d, nn.ReLU):
                    yield sequence, place


class NormReLU(nn.BatchNorm3d):
    """relu(BatchNorm3d(x)); by kernels where a CUDA device trains, else layer by layer."""

    @classmethod
    def like(cls, norm: nn.BatchNorm3d) -> NormReLU:
        """Gives the layer that takes the place of `norm` and a ReLU, with the tensors of `norm`."""
        made = cls(norm.num_features, norm.eps, norm.momentum)
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        told = (self.weight, self.bias, self.running_mean, self.running_var)
        if has_kernels(x) and self.training and self.momentum is not None:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            return norm_relu(x, *told, self.momentum, self.eps)
        if has_kernels(x) and not self.training and not torch.is_grad_enabled():
            return norm_relu_of_old(x, *told, self.eps)
        return F.relu(super().forward(x), inplace=True)


def has_kernels(x: Tensor) -> bool:
    """Whether a map is where the kernels can take it."""
    return x.is_cuda and x.dim() == 5 and x.dtype in (torch.float32, torch.bfloat16)


def norm_relu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    running_mean_C: Tensor,
    running_var_C: Tensor,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Gives relu(γ (x − μ)/σ + β) with the batch's statistics, and moves the running ones.

    Ioffe and Szegedy 2015, algorithm 1. Kept for the backward pass: x and the statistics.

    Args:
        x_BCTHW: float32 or bf16; channels best come last in memory, else it is copied.

    Raises:
        ValueError: there is only one value for each channel.
    """
    if x_BCTHW.numel() <= x_BCTHW.shape[1]:
        raise ValueError(f"one value for each channel has no variance: {tuple(x_BCTHW.shape)}")
    made: Tensor = _NormReLU.apply(
        x_BCTHW, weight_C, bias_C, running_mean_C, running_var_C, momentum, eps
    )
    return made


def norm_relu_of_old(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    running_mean_C: Tensor,
    running_var_C: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    """Gives relu(γ (x − μ)/σ + β) with the running statistics; no gradients flow through it."""
    return _Rows(x_BCTHW).normalise(running_mean_C, (running_var_C + eps).rsqrt(), weight_C, bias_C)


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        from vidssl.backbones import norm_relu_kernels as kernels

        rows = _Rows(x)
        x = rows.map
        mean, scale = torch.empty_like(running_mean), torch.empty_like(running_mean)
        partial = rows.partial_sums()
        kernels.statistics[rows.chunked](
            x, partial, rows.places, rows.spacing, rows.channels, rows.per_chunk, **rows.tile
        )
        kernels.finish_statistics[rows.joined](
            partial, mean, scale, running_mean, running_var, rows.places, rows.channels,
            rows.chunks, rows.per_chunk, momentum, eps, **rows.join,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return rows.normalise(mean, scale, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from vidssl.backbones import norm_relu_kernels as kernels

        x, weight, bias, mean, scale = ctx.saved_tensors
        rows, above = _Rows(x), _Rows(dy)
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(bias)
        dx = torch.empty_like(x, memory_format=LAST)
        partial = rows.partial_sums()
        known = (mean, scale, weight, bias)
        spacings = (above.spacing, rows.spacing)
        kernels.reduce_gradient[rows.chunked](
            above.map, x, partial, *known, rows.places, *spacings, rows.channels, rows.per_chunk,
            **rows.tile,
        )  # fmt: skip
        kernels.finish_gradient[rows.joined](
            partial, d_weight, d_bias, rows.channels, rows.chunks, **rows.join
        )
        kernels.input_gradient[rows.tiled](
            above.map, x, dx, *known, d_weight, d_bias, rows.places, *spacings, rows.channels,
            **rows.tile,
        )  # fmt: skip
        return dx, d_weight, d_bias, None, None, None, None


class _Rows:
    """A map as rows of channels, and how programs share them.

    Attributes:
        map: the tensor, copied only where its rows are not evenly apart.
        places: rows.
        spacing: values from one row to the next.
        tiled, chunked, joined: grids of the three kinds of kernels.
    """

    def __init__(self, x: Tensor) -> None:
        from vidssl.backbones import norm_relu_kernels as kernels

        spacing = row_spacing(x)
        if spacing is None:
            x = x.contiguous(memory_format=LAST)
            spacing = x.shape[1]
        self.map, self.spacing, self.channels = x, spacing, x.shape[1]
        self.places = x.numel() // self.channels
        block = min(_power_of_two(self.channels), kernels.MOST_CHANNELS)
        rows = kernels.TILE // block
        blocks, tiles = -(-self.channels // block), -(-self.places // rows)
        self.per_chunk = rows * -(-tiles // max(1, kernels.CHUNKS // blocks))
        self.chunks = -(-self.places // self.per_chunk)
        self.tiled, self.chunked = (tiles, blocks), (self.chunks, blocks)
        self.joined = (-(-self.channels // kernels.JOINED_CHANNELS),)
        self.tile = {"R": rows, "C": block, "num_warps": kernels.NUM_WARPS}
        self.join = {"K": kernels.JOINED, "C": kernels.JOINED_CHANNELS}

    def normalise(self, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Gives relu(γ x̂ + β), channels last."""
        from vidssl.backbones import norm_relu_kernels as kernels

        y = torch.empty_like(self.map, memory_format=LAST)
        kernels.normalise[self.tiled](
            self.map, y, mean, scale, weight, bias,
            self.places, self.spacing, self.channels, **self.tile,
        )  # fmt: skip
        return y

    def partial_sums(self) -> Tensor:
        """Gives room for two sums of each chunk."""
        return self.map.new_empty((self.chunks, 2, self.channels), dtype=torch.float32)


def row_spacing(x_BCTHW: Tensor) -> int | None:
    """Gives the values between a place's channels and the next place's; None: not everywhere.

    Channels must lie one after another, places in the order of B, T, H and W.
    """
    channels = x_BCTHW.shape[1]
    if channels > 1 and x_BCTHW.stride(1) != 1:
        return None
    spacing, inner = 0, 1
    for dim in (4, 3, 2, 0):
        size, step = x_BCTHW.shape[dim], x_BCTHW.stride(dim)
        if size > 1:
            spacing = spacing or step
            if step == 0 or step != spacing * inner:
                return None
        inner *= size
    return spacing or channels


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
