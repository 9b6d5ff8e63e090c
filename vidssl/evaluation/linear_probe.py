"""Trains a linear classifier on frozen features: BatchNorm, then one linear layer.

Settings of the CoCLR and ViCC code for saved features: SGD with momentum 0.9, batch 1024, rate 1,
weight decay 1e-3, 100 epochs, a tenth of the rate after 60 and after 80.

Legend: N videos, D feature width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.base.cores_and_memory import one_thread
from vidssl.base.errors import VidsslError, require

PUBLISHED_BATCH = 1024
STEPS_PER_EPOCH = 8


@dataclass(frozen=True)
class ProbeConfig:
    """How the classifier is trained.

    Attributes:
        epochs, lr, momentum, weight_decay: of SGD.
        decay_at: shares of the epochs after which the rate is divided by ten.
        batch: videos per step; None: see :func:`batch_for`.
        lr_batch: the batch size that `lr` is for; smaller batches scale it in proportion.
    """

    epochs: int = 100
    lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.8)
    batch: int | None = None
    lr_batch: int = PUBLISHED_BATCH

    def __post_init__(self) -> None:
        require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        require("batch", self.batch, self.batch is None or self.batch >= 2, "at least 2 videos")
        require("lr_batch", self.lr_batch, self.lr_batch >= 1, "at least 1")
        require("lr", self.lr, self.lr >= 0, "0 or more")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        require("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings for a recipe; the later `lr_batch` is left out if it is 1024."""
        fields = asdict(self) | {"decay_at": list(self.decay_at)}
        if self.lr_batch == PUBLISHED_BATCH:
            del fields["lr_batch"]
        return fields


def batch_for(videos: int, config: ProbeConfig) -> int:
    """Returns the batch size: the published 1024, or less for small training sets.

    The published sets have 9 or more steps per epoch. For fewer videos the batch is the largest
    power of two, at least 16, with 8 or more steps per epoch.
    """
    if config.batch is not None:
        return config.batch
    batch = PUBLISHED_BATCH
    while batch > 16 and videos < STEPS_PER_EPOCH * batch:
        batch //= 2
    return batch


def rate_for(batch: int, config: ProbeConfig) -> float:
    """Returns the first learning rate: `lr`, scaled down for batches below `lr_batch`."""
    return config.lr * min(1.0, batch / config.lr_batch)


def probe_settings(config: ProbeConfig, videos: int) -> dict[str, Any]:
    """Returns all settings of a training on so many videos, for a recipe."""
    batch = batch_for(videos, config)
    settings = config.as_dict() | {"batch": batch}
    return {"settings": settings, "first_rate": rate_for(batch, config)}


class LinearProbe(nn.Module):
    """The classifier: features [N, D] → scores (logits) [N, K]."""

    def __init__(self, dim: int, classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        self.fc = nn.Linear(dim, classes)
        nn.init.normal_(self.fc.weight, 0, 0.01, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Returns scores [N, K]."""
        scores: Tensor = self.fc(self.norm(x_ND))
        return scores


def train_probe(
    features_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    config: ProbeConfig,
    seed: int,
    device: torch.device | str = "cpu",
    after_epoch: Callable[[float], None] = lambda loss: None,
) -> LinearProbe:
    """Trains the classifier, and returns it with the weights of the last epoch.

    Args:
        after_epoch: is called with the mean loss of each epoch.

    Raises:
        ValueError: fewer than two videos; BatchNorm needs two.
        VidsslError: the loss is not finite.
    """
    if len(features_ND) < 2:
        raise ValueError("a linear probe needs at least two videos to train on")
    generator = torch.Generator().manual_seed(seed)
    probe = LinearProbe(features_ND.shape[1], classes, generator).to(device).train()
    x, y = torch.from_numpy(features_ND).to(device), torch.from_numpy(label_N).to(device)
    batch = batch_for(len(x), config)
    optimizer = torch.optim.SGD(
        probe.parameters(),
        rate_for(batch, config),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    milestones = [round(share * config.epochs) for share in config.decay_at]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    steps = max(1, min(-(-len(x) // batch), len(x) // 2))  # at least two videos in each
    with one_thread():
        for _ in range(config.epochs):
            after_epoch(_epoch(probe, optimizer, x, y, steps, generator))
            schedule.step()
    return probe.eval()


def _epoch(
    probe: LinearProbe,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    steps: int,
    generator: torch.Generator,
) -> float:
    """Trains for one epoch, in random order, and returns the mean loss.

    Raises:
        VidsslError: the loss is not finite.
    """
    total = torch.zeros((), device=x.device)
    # Batches of nearly equal size, so that no video is left out and no batch has only one.
    for rows in torch.randperm(len(x), generator=generator).to(x.device).tensor_split(steps):
        loss = F.cross_entropy(probe(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    mean = float(total) / len(x)
    if not math.isfinite(mean):
        raise VidsslError(
            "the classifier has diverged: its loss is no finite number any more; a lower rate "
            "(--set lr=...) helps"
        )
    return mean


@torch.inference_mode()
def probabilities(
    probe: LinearProbe, features_ND: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Returns class probabilities, float32 [N, K]."""
    with one_thread():
        scores = probe.to(device).eval()(torch.from_numpy(features_ND).to(device))
    return scores.softmax(1).cpu().numpy()
