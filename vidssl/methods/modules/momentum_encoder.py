"""Momentum encoders: copies that follow a trained encoder slowly (He et al. 2020, MoCo eq. 2)."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen_copy(encoder: nn.Module) -> nn.Module:
    """Returns a copy whose parameters get no gradient."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def update_momentum(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """Sets θ_k ← m·θ_k + (1−m)·θ_q for parameters; the key keeps its own BatchNorm statistics."""
    keys, queries = list(key.parameters()), list(query.parameters())
    # Not a lerp: the published order of multiplications keeps agreement to the last bits.
    torch._foreach_mul_(keys, momentum)
    torch._foreach_add_(keys, queries, alpha=1 - momentum)
