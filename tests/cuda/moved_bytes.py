"""Bytes through a device's memory: how many a step moves, and how many the device can.

Convolutions of S3D are small for what they read and write: the limit is memory, not arithmetic.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = {  # of operations, by what their names hold; the first that fits
    "convolutions": ("convolution", "conv3d"),
    "BatchNorm": ("batch_norm",),
    "ReLU": ("relu", "threshold"),
    "pooling": ("pool",),
    "optimiser and key encoder": ("_foreach", "_fused", "adam"),
    "copies and casts": ("copy", "clone", "contiguous", "cat"),
}


def kind_of(operation: str) -> str:
    """Returns what an operation does, one of :data:`KINDS` or "other"."""
    name = operation.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "other")


class MovedBytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if each did so once for each tensor.

    Views move nothing. BatchNorm of a batch reads its maps twice, since nothing can be normalised
    before all of it has been seen. What a fused kernel would save is counted. Compiled code, and
    kernels of Triton, are not seen: the count is of the same step in torch's own operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_kind: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view and not any(part in func.name() for part in ("empty", "prim::")):
            tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)]
            tensors += _read_again(func.name(), args)
            self.by_kind[kind_of(func.name())] += sum(t.numel() * t.element_size() for t in tensors)
        return made


def _read_again(operation: str, args: tuple[Any, ...]) -> list[Tensor]:
    """Returns the maps that BatchNorm reads a second time; none where it has its statistics."""
    if "batch_norm" not in operation or any(told is False for told in args):
        return []
    return [t for t in args if isinstance(t, Tensor) and t.dim() > 2]


def moved_by(work: Callable[[], object]) -> Counter[str]:
    """Returns the bytes that `work` moves, by kind of operation."""
    with MovedBytes() as seen:
        work()
    return seen.by_kind


def bandwidth(device: torch.device, size: int = 2**30, rounds: int = 20) -> float:
    """Returns the bytes a second that the device reads and writes when it copies."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    for count in (2, rounds):  # the first are to warm up
        _wait(device)
        begin = time.perf_counter()
        for _ in range(count):
            target.copy_(source)
        _wait(device)
        seconds = time.perf_counter() - begin
    return 2 * size * rounds / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
