"""The numbers of training: how long, in which batches, by which optimiser and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.base.typed_settings import added_later

OPTIMIZERS = ("adam", "adamw", "sgd", "larc")
SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class TrainSpec:
    """How long and how fast to train. Defaults: InfoNCE on UCF101 (Han et al. 2020).

    Attributes:
        batch_size: samples in one optimiser step, over all ranks and micro-batches.
        accumulate: micro-batches per optimiser step.
        draws: each video has so many samples in all, of which an epoch has one; 0: an epoch draws
            its own. Where a backbone has a fixed part, a CPU then computes it once per sample.
        steps: at least so many optimiser steps, and for a small set as many epochs as they take; 0:
            the epochs alone say how long. Once a plan is made, `epochs` has what it came to.
        optimizer: adam, adamw, sgd, or larc (:class:`vidssl.engine.larc.LARC`: SGD with layer-wise
            rates).
        weight_decay: coupled (L2), on all parameters, as published; with adamw decoupled
            (Loshchilov and Hutter 2019).
        milestones, gamma: of the step schedule, in epochs.
        warmup_epochs: the rate rises linearly from 0 over so many epochs.
        warmup_steps: the same in steps, in place of epochs; 0: the epochs say it.
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
    steps: int = added_later(0)
    warmup_steps: int = added_later(0)
    draws: int = added_later(0)

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
        for name in (
            "lr",
            "weight_decay",
            "gamma",
            "warmup_epochs",
            "final_lr",
            "steps",
            "warmup_steps",
            "draws",
        ):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("sgd_momentum", self.sgd_momentum, 0 <= self.sgd_momentum < 1, "in [0, 1)")
