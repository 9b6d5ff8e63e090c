"""Triton's interpreter, on which kernels run where there is no GPU (conftest.py turns it on)."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch

# Of tests of kernels: those that a GPU runs are among those that are for GPUs.
CUDA_WHERE_THERE_IS = [pytest.mark.cuda] if torch.cuda.is_available() else []


def skip_unless_it_loops() -> None:
    """Skips a file of tests where the interpreter cannot loop.

    That of Triton 3.6 makes a loop's bounds of arrays by int(), which NumPy 2.4 refuses.
    """
    triton, numpy = (tuple(map(int, version(n).split(".")[:2])) for n in ("triton", "numpy"))
    if not torch.cuda.is_available() and triton < (3, 7) and numpy >= (2, 4):
        pytest.skip(
            "this Triton's interpreter cannot loop with this NumPy", allow_module_level=True
        )
