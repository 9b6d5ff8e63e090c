"""Schedules of the learning rate: warm-up, steps, cosine."""

from __future__ import annotations

import math

import torch

from vidssl.engine.train_spec import TrainSpec


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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every parameter group: its share of the whole."""
    for group in optimizer.param_groups:
        # A resume.pt from before there were shares has none.
        group["lr"] = rate * group.get("share", 1.0)
