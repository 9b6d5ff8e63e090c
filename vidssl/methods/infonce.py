"""InfoNCE with a momentum encoder and a queue (He et al. 2020, MoCo; Han et al. 2020, §3.1).

Legend: B clips, P projection width, K queue length, M = 1 + K candidates of which the first is
the clip's own key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidssl.backbones import Encoder
from vidssl.base.distributed import gather, with_shuffled_batch, world_size
from vidssl.base.errors import require
from vidssl.base.typed_settings import added_later
from vidssl.clips.batch import ClipBatch
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState, projection_width
from vidssl.methods.modules.batch_contrast import BatchRows
from vidssl.methods.modules.metrics import nearest_has_same_label
from vidssl.methods.modules.momentum_encoder import frozen_copy, update_momentum
from vidssl.methods.modules.nce_loss import contrast_scores, mil_nce, own_key_alone
from vidssl.methods.modules.queue import Queue, no_numbers, random_unit_rows

NEGATIVES = ("queue", "batch")


@dataclass(frozen=True)
class InfoNCEConfig:
    """InfoNCE's hyperparameters; defaults: UCF101 in Han et al. 2020.

    Attributes:
        queue: K, number of past keys that serve as negatives.
        momentum: m of the key encoder.
        temperature: τ.
        negatives: "queue": past keys of a momentum encoder, as published; "batch": both clips of
            all other videos of the batch, which the trained network embeds
            (:mod:`vidssl.methods.modules.batch_contrast`). The queue then serves figures alone.
    """

    queue: int = 2048
    momentum: float = 0.999
    temperature: float = 0.07
    negatives: str = added_later("queue")

    def __post_init__(self) -> None:
        require("negatives", self.negatives, self.negatives in NEGATIVES, "queue or batch")
        require("queue", self.queue, self.queue >= 1, "at least 1")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        require("temperature", self.temperature, self.temperature > 0, "above 0")


class InfoNCE(Method):
    """Two clips of one video attract each other; queued keys of other clips repel.

    Subclasses decide which candidates are positives, and the loss of several positives.
    """

    name = "infonce"
    Config = InfoNCEConfig

    def __init__(self, config: InfoNCEConfig, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        width = projection_width(self.name, encoder)
        self.config = config
        self.view = encoder.spec.view
        self.query = encoder
        self.key = None if config.negatives == "batch" else frozen_copy(encoder)
        generator = torch.Generator().manual_seed(seed)
        self.queue = Queue(**self.queue_columns(width, generator))

    @classmethod
    def build(cls, config: InfoNCEConfig, encoders: Mapping[str, Encoder], seed: int) -> InfoNCE:
        (encoder,) = encoders.values()
        return cls(config, encoder, seed)

    def queue_columns(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the queue's columns as they start: random keys, used from the first step on."""
        rows = self.config.queue
        return {
            "feature": random_unit_rows(rows, width, generator),
            "source": no_numbers(rows),
            "label": no_numbers(rows),
        }

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view,))

    @property
    def encoders(self) -> dict[str, Encoder]:
        return {self.view: self.query}

    def chance_loss(self, samples: int) -> float | None:
        if self.config.negatives == "batch":
            return math.log(2 * samples * world_size() - 1)
        return math.log(1 + self.config.queue)

    def assume_queue_full(self) -> None:
        self.queue.filled.fill_(self.queue.length)

    def before_forward(self, step_state: StepState) -> None:
        if self.key is not None:
            update_momentum(self.key, self.query, self.config.momentum)

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        if self.config.negatives == "batch":
            return self.within_batch(batch, step_state)
        x1, x2 = batch.clips[self.view].unbind(1)
        q_BP = self.query.project(x1)
        rows = self.rows(batch, self.encode_keys(x2, step_state))
        score_BM = self.scores(q_BP, rows["feature"])
        positive_BM = self.positives(rows, step_state)
        return StepOutput(
            loss=self.loss(score_BM, positive_BM) if self.trains() else None,
            metrics=self.metrics(rows, score_BM, positive_BM),
            state=rows,
            features=q_BP.detach(),
        )

    def within_batch(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        """Computes the loss of every clip of the batch against all others."""
        x1, x2 = batch.clips[self.view].unbind(1)
        z_NP = self.query.project(torch.cat([x1, x2]))
        columns = {"video": batch.index, "label": batch.label, "source": batch.source}
        rows = BatchRows(z_NP, {name: column.repeat(2) for name, column in columns.items()})
        score_NM = rows.scores(self.config.temperature)
        own_NM = rows.same("video") & ~rows.itself()
        positive_NM = self.batch_positives(rows, own_NM, step_state)
        state = self.rows(batch, z_NP[len(x1) :].detach())
        return StepOutput(
            loss=self.loss(score_NM, positive_NM),
            metrics=self.batch_metrics(state, score_NM.detach(), own_NM, positive_NM),
            state=state,
            features=z_NP[: len(x1)].detach(),
        )

    def batch_positives(self, rows: BatchRows, own_NM: Tensor, step_state: StepState) -> Tensor:
        """Returns which rows are positives, bool [N, M]: here only the other clip of the video.

        Args:
            own_NM: which row is the other clip of the video.
        """
        return own_NM

    def trains(self) -> bool:
        """Whether this step has a loss."""
        return True

    @torch.no_grad()
    def encode_keys(self, x2: Tensor, step_state: StepState) -> Tensor:
        """Computes k = f_k(x2), the batch shuffled over ranks so that BatchNorm leaks no pairs."""
        assert self.key is not None
        return with_shuffled_batch(self.key.project, x2, step_state.generator())

    def scores(self, q_BP: Tensor, k_BP: Tensor) -> Tensor:
        """Computes [q·k, q·queue] / τ, [B, M]."""
        return contrast_scores(q_BP, k_BP, self.queue.feature, self.config.temperature)

    def rows(self, batch: ClipBatch, k_BP: Tensor) -> dict[str, Tensor]:
        """Returns the rows that the batch adds to the queue after the step, by column."""
        return {"feature": k_BP, "source": batch.source, "label": batch.label}

    def positives(self, rows: dict[str, Tensor], step_state: StepState) -> Tensor:
        """Returns which candidates are positives, bool [B, M]: here only the clip's own key."""
        return own_key_alone(
            len(rows["source"]), 1 + self.config.queue, device=rows["source"].device
        )

    def loss(self, score_BM: Tensor, positive_BM: Tensor) -> Tensor:
        """Computes −log of the positives' share, mean over the batch (Han et al. 2020, eq. 2)."""
        return mil_nce(score_BM, positive_BM)

    def after_step(self, step_state: StepState, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            self.queue.enqueue(**{name: gather(rows) for name, rows in output.state.items()})

    # ── health ──

    @torch.no_grad()
    def metrics(
        self, rows: dict[str, Tensor], score_BM: Tensor, positive_BM: Tensor
    ) -> dict[str, Tensor]:
        """Returns top-1 of the own key, the share of the queue filled, and the online kNN."""
        return {
            "top1": (score_BM.argmax(1) == 0).float().mean(),
            "queue_fill": self.queue.share_filled(),
            "knn": self.online_neighbour(rows),
        }

    def batch_metrics(
        self, state: dict[str, Tensor], score_NM: Tensor, own_NM: Tensor, positive_NM: Tensor
    ) -> dict[str, Tensor]:
        """Returns top-1 of the own clip within the batch, and the online kNN."""
        return {
            "top1": own_NM.gather(1, score_NM.argmax(1, keepdim=True)).float().mean(),
            "knn": self.online_neighbour(state),
        }

    def online_neighbour(self, rows: dict[str, Tensor]) -> Tensor:
        """Returns how often the nearest queued key of another source has the clip's label.

        NaN where no clip and no queued key has a label.
        """
        other_BK = self.queue.valid() & (rows["source"][:, None] != self.queue.source)
        return nearest_has_same_label(
            rows["feature"], rows["label"], self.queue.feature, self.queue.label, other_BK
        )
