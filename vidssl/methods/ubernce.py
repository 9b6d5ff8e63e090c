"""UberNCE: supervised InfoNCE, whose positives are all clips of the same class.

Han et al. 2020, §3.1. Legend: as infonce.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidssl.methods.infonce import InfoNCE, InfoNCEConfig
from vidssl.methods.method import StepState
from vidssl.methods.modules.batch_contrast import BatchRows
from vidssl.methods.modules.nce_loss import mil_nce, supcon_out


@dataclass(frozen=True)
class UberNCEConfig(InfoNCEConfig):
    """UberNCE's hyperparameters, beside InfoNCE's.

    Attributes:
        log_of_sum: True: the paper's loss, −log of the positives' common share; False: that of
            the published code, the mean over positives of −log of each one's share.
    """

    log_of_sum: bool = False


class UberNCE(InfoNCE):
    """The own key and queued keys of the same label attract; all others repel."""

    name = "ubernce"
    supervised = True
    Config = UberNCEConfig
    config: UberNCEConfig

    def positives(self, rows: dict[str, Tensor], step_state: StepState) -> Tensor:
        """Returns own key ∪ same label, bool [B, M]."""
        label_B1 = rows["label"][:, None]
        same_BK = self.queue.valid() & (label_B1 >= 0) & (label_B1 == self.queue.label)
        return torch.cat([torch.ones_like(same_BK[:, :1]), same_BK], dim=1)

    def batch_positives(self, rows: BatchRows, own_NM: Tensor, step_state: StepState) -> Tensor:
        """Returns own clip ∪ same label, bool [N, M]."""
        same_NM = rows.same("label") & (rows.own_columns["label"][:, None] >= 0)
        return (own_NM | same_NM) & ~rows.itself()

    def chance_loss(self, samples: int) -> float | None:
        """Known where the mean over positives is taken outside the log."""
        return None if self.config.log_of_sum else super().chance_loss(samples)

    def loss(self, score_BM: Tensor, positive_BM: Tensor) -> Tensor:
        """Averages outside the log as the published code does, or inside as the paper does."""
        loss = mil_nce if self.config.log_of_sum else supcon_out
        return loss(score_BM, positive_BM)

    @torch.no_grad()
    def metrics(
        self, rows: dict[str, Tensor], score_BM: Tensor, positive_BM: Tensor
    ) -> dict[str, Tensor]:
        """Returns InfoNCE's figures, and the number of positives per clip."""
        return super().metrics(rows, score_BM, positive_BM) | {
            "positives": positive_BM.sum(1).float().mean()
        }
