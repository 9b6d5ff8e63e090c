"""ViCC across views: a frozen encoder of another view adds two embeddings (Toering et al. 2022).

Legend: as vicc.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidssl.backbones import Encoder
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.methods.method import BatchSpec, StepState, projection_width
from vidssl.methods.vicc import ViCC, ViCCConfig


@dataclass(frozen=True)
class ViCCCrossConfig(ViCCConfig):
    """As :class:`ViCCConfig`; defaults: two views on UCF101 in Toering et al. 2022."""

    queue_from_epoch: float = 25.0
    freeze_prototypes_epochs: float = 0.0


class ViCCCross(ViCC):
    """Four embeddings f(x₁), f(x₂), g(y₂), g(y₁), all scored with the student's prototypes.

    Args:
        encoder: f, the student, of view x.
        partner: g, frozen, of view y; its BatchNorm is always in eval mode.
    """

    name = "vicc-cross"
    Config = ViCCCrossConfig
    config: ViCCCrossConfig
    count = 4

    def __init__(
        self, config: ViCCCrossConfig, encoder: Encoder, partner: Encoder, seed: int = 0
    ) -> None:
        widths = [projection_width(self.name, e) for e in (encoder, partner)]
        if widths[0] != widths[1]:
            raise UsageError(
                f"{self.name} scores both streams with the same prototypes: their projections "
                f"must be equally wide, not {widths[0]} and {widths[1]}"
            )
        super().__init__(config, encoder, seed)
        self.partner = partner.requires_grad_(False).eval()
        self.partner_view = partner.spec.view

    @classmethod
    def build(cls, config: Any, encoders: Mapping[str, Encoder], seed: int) -> ViCCCross:
        student, partner = encoders.values()
        return cls(config, student, partner, seed)

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view, self.partner_view))

    def train(self, mode: bool = True) -> ViCCCross:
        super().train(mode)
        self.partner.eval()
        return self

    def embeddings(self, batch: ClipBatch, step_state: StepState) -> list[Tensor]:
        y1, y2 = batch.clips[self.partner_view].unbind(1)
        with torch.no_grad():
            others = [self.partner.project(y2), self.partner.project(y1)]
        return super().embeddings(batch, step_state) + others
