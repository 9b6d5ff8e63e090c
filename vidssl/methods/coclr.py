"""CoCLR: a frozen encoder of another view mines the positives (Han et al. 2020, §3.2).

Legend: as infonce.py; k mined neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidssl.backbones import Encoder
from vidssl.base.errors import require
from vidssl.clips.batch import ClipBatch
from vidssl.methods.infonce import InfoNCE, InfoNCEConfig
from vidssl.methods.method import BatchSpec, StepState, projection_width
from vidssl.methods.modules.metrics import mean_where
from vidssl.methods.modules.queue import random_unit_rows


@dataclass(frozen=True)
class CoCLRConfig(InfoNCEConfig):
    """CoCLR's hyperparameters, beside InfoNCE's.

    Attributes:
        k: nearest neighbours in the other view that become positives; 0 mines none.
        drop_self_prob: probability per step that the own key is no positive where there are other
            positives (it stays in the denominator). 0 in the paper, 0.9 in the later code.
        wait_for_full_queue: train only once the queue is full, as the published loop does.
    """

    k: int = 5
    drop_self_prob: float = 0.0
    wait_for_full_queue: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require("k", self.k, 0 <= self.k <= self.queue, f"from 0 to the queue's {self.queue}")
        chance = self.drop_self_prob
        require("drop_self_prob", chance, 0 <= chance <= 1, "in [0, 1]")


class CoCLR(InfoNCE):
    """InfoNCE whose positives are the own key, keys of the same source, and mined keys.

    Mining compares the partner's embedding of clip 2 in the *other* view with its embeddings of
    queued clips.

    Args:
        encoder: the student.
        partner: frozen encoder of the other view; its BatchNorm is always in eval mode.
    """

    name = "coclr"
    Config = CoCLRConfig
    config: CoCLRConfig

    def __init__(
        self, config: CoCLRConfig, encoder: Encoder, partner: Encoder, seed: int = 0
    ) -> None:
        self._partner_width = projection_width(self.name, partner)
        super().__init__(config, encoder, seed)
        self.partner = partner.requires_grad_(False).eval()
        self.partner_view = partner.spec.view

    @classmethod
    def build(cls, config: Any, encoders: Mapping[str, Encoder], seed: int) -> CoCLR:
        student, partner = encoders.values()
        return cls(config, student, partner, seed)

    def queue_columns(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        columns = super().queue_columns(width, generator)
        other = random_unit_rows(self.config.queue, self._partner_width, generator)
        return columns | {"other": other}

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view, self.partner_view), last_only=(self.partner_view,))

    def train(self, mode: bool = True) -> CoCLR:
        super().train(mode)
        self.partner.eval()
        return self

    def trains(self) -> bool:
        return self.queue.is_full() or not self.config.wait_for_full_queue

    def rows(self, batch: ClipBatch, k_BP: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            other_BP = self.partner.project(batch.clips[self.partner_view][:, -1])
        return super().rows(batch, k_BP) | {"other": other_BP}

    def positives(self, rows: dict[str, Tensor], step_state: StepState) -> Tensor:
        """Returns own key ∪ same source ∪ mined, bool [B, M] (Han et al. 2020, eq. 3)."""
        same_BK = self.same_source(rows)
        mined_BK = self.mined(rows["other"], same_BK)
        own_B1 = torch.ones_like(same_BK[:, :1])
        return self.drop_self(torch.cat([own_B1, same_BK | mined_BK], dim=1), step_state)

    def same_source(self, rows: dict[str, Tensor]) -> Tensor:
        """Returns which queued keys come from the clip's own source video, bool [B, K]."""
        return self.queue.valid() & (rows["source"][:, None] == self.queue.source)

    def mined(self, other_BP: Tensor, same_BK: Tensor) -> Tensor:
        """Returns the k nearest queued clips of other sources in the other view, bool [B, K].

        None are mined until the queue is full.
        """
        similarity_BK = (other_BP @ self.queue.other.T).masked_fill(same_BK, float("-inf"))
        top_Bk = similarity_BK.topk(self.config.k, dim=1).indices
        mined_BK = torch.zeros_like(same_BK).scatter_(1, top_Bk, True)
        return mined_BK & self.queue.full() & ~same_BK

    def drop_self(self, positive_BM: Tensor, step_state: StepState) -> Tensor:
        """Takes the own key out of the positives where others remain; one random draw per step."""
        if torch.rand((), generator=step_state.generator()) < self.config.drop_self_prob:
            positive_BM[:, 0] = positive_BM.sum(1) == 1
        return positive_BM

    @torch.no_grad()
    def metrics(
        self, rows: dict[str, Tensor], score_BM: Tensor, positive_BM: Tensor
    ) -> dict[str, Tensor]:
        """Returns InfoNCE's figures, positives per clip, and the purity of mined positives.

        Purity is the share of mined positives with the clip's label, over those with a label.
        """
        mined_BK = positive_BM[:, 1:] & ~self.same_source(rows)
        known_BK = mined_BK & (rows["label"][:, None] >= 0) & (self.queue.label >= 0)
        return super().metrics(rows, score_BM, positive_BM) | {
            "purity": mean_where(rows["label"][:, None] == self.queue.label, known_BK),
            "positives": positive_BM.sum(1).float().mean(),
        }
