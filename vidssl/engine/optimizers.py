"""Optimisers: Adam, AdamW, SGD and LARC, over parameters with shares of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidssl.engine.larc import LARC
from vidssl.engine.train_spec import TrainSpec


def make_optimizer(
    spec: TrainSpec, parameters: Iterable[nn.Parameter] | Sequence[Mapping[str, Any]]
) -> torch.optim.Optimizer:
    """Returns the optimiser over the trainable ones of `parameters`.

    Args:
        parameters: all of them, or groups as :meth:`vidssl.methods.Method.parameter_groups`
            returns them, each with its `share` of the learning rate.
    """
    groups = _groups(list(parameters))
    if spec.optimizer == "adam":
        return torch.optim.Adam(groups, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    if spec.optimizer == "larc":
        return LARC(groups, spec.lr, spec.sgd_momentum, spec.weight_decay)
    # Not fused: torch's fused SGD fails if a tensor gets its first gradient after others, as
    # frozen prototypes do. On CUDA torch chooses its foreach form by itself.
    return torch.optim.SGD(
        groups, lr=spec.lr, momentum=spec.sgd_momentum, weight_decay=spec.weight_decay
    )


def _groups(given: list[Any]) -> list[dict[str, Any]]:
    groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
    return [
        {"share": 1.0, **group, "params": [p for p in group["params"] if p.requires_grad]}
        for group in groups
    ]
