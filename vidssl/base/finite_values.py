"""Looks for values that are not finite (NaN, infinity) in weights, statistics and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidssl.base.errors import VidsslError


def first_not_finite(tensors: Mapping[str, Any]) -> str | None:
    """Returns the name of the first tensor with a value that is not finite; None: there is none.

    A device is asked once for all tensors. What is no tensor of floating-point numbers is finite.
    """
    floats = {
        name: value
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    if not floats:
        return None
    sound = torch.stack([value.detach().isfinite().all() for value in floats.values()])
    return next((name for name, fine in zip(floats, sound.tolist(), strict=True) if not fine), None)


def check_finite(tensors: Mapping[str, Any], where: object) -> None:
    """Checks that all tensors of something, such as a file, have finite values.

    Raises:
        VidsslError: one has a value that is not; the text begins with `where`.
    """
    if (name := first_not_finite(tensors)) is not None:
        raise VidsslError(
            f"{where} has values that are no numbers (NaN or infinite), such as in {name}"
        )


def rows_without_length(rows_ND: np.ndarray) -> np.ndarray:
    """Returns the numbers of the rows that cannot be scaled to unit length: int64 [n].

    They have a value that is not finite, or one so large that its square is not.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares_N = np.square(rows_ND, dtype=np.float32).sum(1)
    return np.flatnonzero(~np.isfinite(squares_N))
