"""Chooses the device that a stage computes on."""

from __future__ import annotations

import ctypes
import sys

from vidssl.base.errors import UsageError


def choose_device(wanted: str | None) -> str:
    """Returns the wanted device, or else "cuda" if there is one, or else "cpu".

    Raises:
        UsageError: CUDA is wanted and absent, or the name is unknown.
    """
    if wanted not in (None, "cpu", "cuda"):
        raise UsageError(f"there is no device {wanted}; there are cpu and cuda")
    if wanted is None:
        return "cuda" if _has_cuda() else "cpu"
    if wanted == "cuda" and not _has_cuda():
        raise UsageError("this machine has no CUDA device that torch can use; try --device cpu")
    return wanted


def _has_cuda() -> bool:
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")  # without the driver there is no need to load PyTorch
        except OSError:
            return False
    import torch

    return torch.cuda.is_available()
