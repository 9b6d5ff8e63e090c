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
from vidssl.base.errors import UsageError, require
from vidssl.base.typed_settings import added_later
from vidssl.clips.batch import ClipBatch
from vidssl.methods.infonce import InfoNCE, InfoNCEConfig
from vidssl.methods.method import BatchSpec, StepState, projection_width
from vidssl.methods.modules.batch_contrast import BatchRows
from vidssl.methods.modules.metrics import mean_where
from vidssl.methods.modules.nce_loss import mil_nce, supcon_out
from vidssl.methods.modules.queue import no_numbers, random_unit_rows

MINING = ("queue", "set")


@dataclass(frozen=True)
class CoCLRConfig(InfoNCEConfig):
    """CoCLR's hyperparameters, beside InfoNCE's.

    Attributes:
        k: nearest neighbours in the other view that become positives; 0 mines none.
        drop_self_prob: probability per step that the own key is no positive where there are other
            positives (it stays in the denominator). 0 in the paper, 0.9 in the later code.
        wait_for_full_queue: train only once the queue is full, as the published loop does.
        mining: "queue": among queued clips by the partner's embeddings of single clips, as
            published; "set": among all training videos, once before training, by the mean features
            of student and partner (:mod:`vidssl.training.mined_neighbours`).
        mutual: of mined neighbours only those count that have the clip among theirs; for "set".
        log_of_sum: True: −log of the positives' common share, as published; False: the mean over
            positives of −log of each one's share.
    """

    k: int = 5
    drop_self_prob: float = 0.0
    wait_for_full_queue: bool = True
    mining: str = added_later("queue")
    mutual: bool = added_later(False)
    log_of_sum: bool = added_later(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require("k", self.k, 0 <= self.k <= self.queue, f"from 0 to the queue's {self.queue}")
        chance = self.drop_self_prob
        require("mining", self.mining, self.mining in MINING, "queue or set")
        if self.mining == "queue" and (self.mutual or self.negatives == "batch"):
            raise UsageError("mutual=true and negatives=batch need mining=set")
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
    neighbours: Tensor

    def __init__(
        self, config: CoCLRConfig, encoder: Encoder, partner: Encoder, seed: int = 0
    ) -> None:
        self._partner_width = projection_width(self.name, partner)
        super().__init__(config, encoder, seed)
        self.partner = partner.requires_grad_(False).eval()
        self.partner_view = partner.spec.view
        if config.mining == "set":
            self.register_buffer("neighbours", torch.empty(0, config.k, dtype=torch.long))

    def set_neighbours(self, neighbours_Vk: Tensor) -> None:
        """Takes the mined neighbours of each video of the pack, for `mining` "set".

        Args:
            neighbours_Vk: int64, numbers of videos; −1 where there are fewer.
        """
        self.neighbours = neighbours_Vk.to(self.neighbours.device)

    @classmethod
    def build(cls, config: Any, encoders: Mapping[str, Encoder], seed: int) -> CoCLR:
        student, partner = encoders.values()
        return cls(config, student, partner, seed)

    def queue_columns(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        columns = super().queue_columns(width, generator)
        if self.config.mining == "set":
            return columns | {"video": no_numbers(self.config.queue)}
        other = random_unit_rows(self.config.queue, self._partner_width, generator)
        return columns | {"other": other}

    @property
    def batch_spec(self) -> BatchSpec:
        if self.config.mining == "set":  # the partner has said what it knows before training
            return BatchSpec(views=(self.view,))
        return BatchSpec(views=(self.view, self.partner_view), last_only=(self.partner_view,))

    def train(self, mode: bool = True) -> CoCLR:
        super().train(mode)
        self.partner.eval()
        return self

    def trains(self) -> bool:
        waits = self.config.wait_for_full_queue and self.config.mining == "queue"
        return self.queue.is_full() or not waits

    def rows(self, batch: ClipBatch, k_BP: Tensor) -> dict[str, Tensor]:
        if self.config.mining == "set":
            return super().rows(batch, k_BP) | {"video": batch.index}
        with torch.no_grad():
            other_BP = self.partner.project(batch.clips[self.partner_view][:, -1])
        return super().rows(batch, k_BP) | {"other": other_BP}

    def positives(self, rows: dict[str, Tensor], step_state: StepState) -> Tensor:
        """Returns own key ∪ same source ∪ mined, bool [B, M] (Han et al. 2020, eq. 3)."""
        same_BK = self.same_source(rows)
        if self.config.mining == "set":
            mined_BK = self.are_neighbours(rows["video"], self.queue.video) & ~same_BK
        else:
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

    def are_neighbours(self, video_N: Tensor, other_M: Tensor) -> Tensor:
        """Returns which videos are among the mined neighbours of which, bool [N, M]."""
        of_Nk = self.neighbours[video_N]
        return ((of_Nk[:, :, None] == other_M) & (of_Nk[:, :, None] >= 0)).any(1)

    def batch_positives(self, rows: BatchRows, own_NM: Tensor, step_state: StepState) -> Tensor:
        """Returns own clip ∪ mined clips, bool [N, M]; now and then without the own one."""
        mined_NM = self.are_neighbours(rows.own_columns["video"], rows.columns["video"])
        if self.drops_self(step_state):
            own_NM = own_NM & ~mined_NM.any(1, keepdim=True)
        return own_NM | mined_NM

    def chance_loss(self, samples: int) -> float | None:
        """Known where the mean over positives is taken outside the log."""
        return None if self.config.log_of_sum else super().chance_loss(samples)

    def loss(self, score_BM: Tensor, positive_BM: Tensor) -> Tensor:
        """Averages inside the log as published, or outside."""
        loss = mil_nce if self.config.log_of_sum else supcon_out
        return loss(score_BM, positive_BM)

    def drop_self(self, positive_BM: Tensor, step_state: StepState) -> Tensor:
        """Takes the own key out of the positives where others remain; one random draw per step."""
        if self.drops_self(step_state):
            positive_BM[:, 0] = positive_BM.sum(1) == 1
        return positive_BM

    def drops_self(self, step_state: StepState) -> bool:
        """Whether the own key is no positive in this step, the same for all ranks."""
        draw = torch.rand((), generator=step_state.generator())
        return bool(draw < self.config.drop_self_prob)

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
