"""The published linear probe: a linear layer above a frozen encoder, on clips drawn every epoch.

As in CoCLR's and ViCC's code: pooled features at unit length → BatchNorm → linear, initialised from
N(0, 0.01); no dropout; the encoder's BatchNorm in eval mode. No linear probe was published for
encoders with a context (DPC, CoCon): there the head is that of finetuning, above a frozen GRU and
backbone. (:mod:`vidssl.evaluation.linear_probe` does the same on features that were saved once.)

Legend: B clips, N blocks, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones import Encoder
from vidssl.base.errors import require
from vidssl.clips.batch import ClipBatch
from vidssl.methods.finetune import Classifier, Finetune, FinetuneConfig, no_dropout
from vidssl.methods.method import StepOutput, StepState


@dataclass(frozen=True)
class LinearConfig:
    """How a linear layer is trained above a frozen encoder.

    Attributes:
        classes: K; the stage sets it to those of the labels.
        relu: only with a context: a ReLU before the GRU (DPC; CoCon has none).
    """

    classes: int = 101
    relu: bool = False

    def __post_init__(self) -> None:
        require("classes", self.classes, self.classes >= 2, "at least 2")


class LinearClassifier(Classifier):
    """A frozen encoder, always in eval mode, with BatchNorm and a linear layer above it."""

    def __init__(
        self, encoder: Encoder, config: LinearConfig, generator: torch.Generator | None = None
    ) -> None:
        whole = FinetuneConfig(classes=config.classes, dropout=0.0, relu=config.relu)
        super().__init__(encoder, whole, generator)
        self.norm = nn.BatchNorm1d(encoder.dim)
        encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LinearClassifier:
        """Changes the mode of everything except the encoder."""
        super().train(mode)
        self.encoder.eval()
        return self

    def summary(
        self, x_BNCTHW: Tensor, drop_state: Callable[[Tensor], Tensor] = no_dropout
    ) -> Tensor:
        """Returns one vector per clip [B, D]; pooled features have unit length."""
        h_BD = super().summary(x_BNCTHW, no_dropout)
        return F.normalize(h_BD, dim=1) if self.encoder.context is None else h_BD


class Linear(Finetune):
    """Cross-entropy of the scores of a linear layer; the encoder stays as it is."""

    name = "linear"
    Config = LinearConfig  # type: ignore[assignment]
    config: LinearConfig  # type: ignore[assignment]

    def make_classifier(self, encoder: Encoder, generator: torch.Generator) -> Classifier:
        return LinearClassifier(encoder, self.config, generator)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.classifier.parameters() if p.requires_grad]}]

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        score_BK = self.classifier(batch.clips[self.view])
        # No features for the log: nothing below the layer is trained, so nothing can collapse.
        return self.output(score_BK, batch.label)
