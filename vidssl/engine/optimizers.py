"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.engine.larc import LARC

OPTIMIZERS = ("adam", "sgd", "larc")
SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class TrainSpec:
    """How long and how fast to train. Defaults: InfoNCE on UCF101 (Han et al. 2020).

    Attributes:
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches per optimiser step.
        optimizer: adam, sgd, or larc (:class:`vidssl.engine.larc.LARC`: SGD with layer-wise rates).
        weight_decay: coupled (L2), on all parameters, as published.
        milestones, gamma: of the step schedule, in epochs.
        warmup_epochs: the rate rises linearly from 0 over so many epochs.
        final_lr: the rate at which the cosine schedule ends.
    """

    epochs: int = 300
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-5
    sgd_momentum: float = 0.9
    schedule: str = "step"
    milestones: tuple[int, ...] = (250, 280)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UsageError(
                    f"there is no {name} {value}{nearest_name(value, known)}; "
                    f"there are {', '.join(known)}"
                )
        for name in ("epochs", "batch_size", "accumulate"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "weight_decay", "gamma", "warmup_epochs", "final_lr"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("sgd_momentum", self.sgd_momentum, 0 <= self.sgd_momentum < 1, "in [0, 1)")


def learning_rate(spec: TrainSpec, epoch: float) -> float:
    """Returns the rate after `epoch` epochs (fractions count steps within one)."""
    if epoch < spec.warmup_epochs:
        return spec.lr * epoch / spec.warmup_epochs
    if spec.schedule == "step":
        return spec.lr * spec.gamma ** sum(epoch >= m for m in spec.milestones)
    if spec.schedule == "cosine":
        done = (epoch - spec.warmup_epochs) / max(spec.epochs - spec.warmup_epochs, 1e-9)
        return spec.final_lr + (spec.lr - spec.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
    return spec.lr


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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every parameter group: its share of the whole."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(
            "share", 1.0
        )  # a resume.pt from before there were shares has none
