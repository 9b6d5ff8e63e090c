"""CMC: two views of one clip attract each other; both encoders are trained (Tian et al. 2020).

Contrastive multiview coding in MoCo's form, the cross-view baseline to CoCLR. Legend: as
infonce.py; v and w the two views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidssl.backbones import Encoder
from vidssl.base.distributed import gather, with_shuffled_batch, world_size
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.methods.infonce import InfoNCEConfig
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState, projection_width
from vidssl.methods.modules.batch_contrast import BatchRows
from vidssl.methods.modules.metrics import nearest_has_same_label
from vidssl.methods.modules.momentum_encoder import frozen_copy, update_momentum
from vidssl.methods.modules.nce_loss import contrast_scores, mil_nce, own_key_alone
from vidssl.methods.modules.queue import Queue, no_numbers, random_unit_rows


@dataclass(frozen=True)
class CMCConfig(InfoNCEConfig):
    """CMC's hyperparameters, beside InfoNCE's.

    Attributes:
        same_moment: True: query and key show the same clip, as in Tian et al.; False: two clips of
            one video, as in InfoNCE.
    """

    same_moment: bool = True


class CMC(Method):
    """Each view's query must find the other view's key of the same clip among queued keys.

    Args:
        encoders: two, one of each view, both trained.
    """

    name = "cmc"
    Config = CMCConfig
    joint = True
    view_count = 2

    def __init__(self, config: CMCConfig, encoders: Mapping[str, Encoder], seed: int = 0) -> None:
        super().__init__()
        widths = {projection_width(self.name, encoder) for encoder in encoders.values()}
        if len(encoders) != 2 or len(widths) != 1:
            raise UsageError(f"{self.name} compares two streams, with projections equally wide")
        self.config = config
        self.views = tuple(encoders)
        self.query = nn.ModuleDict(encoders)
        copies = encoders.items() if config.negatives == "queue" else ()
        self.key = nn.ModuleDict({view: frozen_copy(encoder) for view, encoder in copies})
        generator = torch.Generator().manual_seed(seed)
        (width,) = widths
        keys = {view: random_unit_rows(config.queue, width, generator) for view in self.views}
        numbers = {name: no_numbers(config.queue) for name in ("source", "label")}
        self.queue = Queue(**keys, **numbers)

    @classmethod
    def build(cls, config: CMCConfig, encoders: Mapping[str, Encoder], seed: int) -> CMC:
        return cls(config, encoders, seed)

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=self.views, clips=1 if self.config.same_moment else 2)

    @property
    def encoders(self) -> dict[str, Encoder]:
        return dict(self.query.items())  # type: ignore[arg-type]

    def before_forward(self, step_state: StepState) -> None:
        if self.config.negatives == "queue":
            update_momentum(self.key, self.query, self.config.momentum)

    def chance_loss(self, samples: int) -> float | None:
        within = self.config.negatives == "batch"
        candidates = samples * world_size() if within else 1 + self.config.queue
        return 2 * math.log(candidates)

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        if self.config.negatives == "batch":
            return self.within_batch(batch)
        q = {view: self.query[view].project(batch.clips[view][:, 0]) for view in self.views}
        k = self.encode_keys(batch, step_state)
        score = {
            v: contrast_scores(q[v], k[w], getattr(self.queue, w), self.config.temperature)
            for v, w in (self.views, self.views[::-1])
        }
        return StepOutput(
            loss=sum(map(self.loss, score.values())),  # L_vw + L_wv (Tian et al. 2020)
            metrics=self.metrics(batch, k, score),
            state={**k, "source": batch.source, "label": batch.label},
            features={view: q_BP.detach() for view, q_BP in q.items()},
        )

    def within_batch(self, batch: ClipBatch) -> StepOutput:
        """Computes the loss of each view's clips against the other view's of the whole batch."""
        z = {
            view: self.query[view].project(batch.clips[view][:, place])
            for view, place in zip(self.views, (0, -1), strict=True)
        }
        rows = {view: BatchRows(z_BP, {"video": batch.index}) for view, z_BP in z.items()}
        keys = {view: z_BP.detach() for view, z_BP in z.items()}
        losses, top1 = [], []
        for v, w in (self.views, self.views[::-1]):
            score_BM, own_BM = rows[w].scores_of(z[v], self.config.temperature), rows[w].itself()
            losses.append(mil_nce(score_BM, own_BM))
            top1.append(own_BM.gather(1, score_BM.argmax(1, keepdim=True)).float().mean())
        return StepOutput(
            loss=sum(losses),
            metrics={"top1": torch.stack(top1).mean(), **self.neighbours(batch, keys)},
            state={**keys, "source": batch.source, "label": batch.label},
            features=keys,
        )

    @torch.no_grad()
    def encode_keys(self, batch: ClipBatch, step_state: StepState) -> dict[str, Tensor]:
        """Returns each view's keys [B, P], from a batch shuffled over ranks."""
        clip = 0 if self.config.same_moment else 1
        return {
            view: with_shuffled_batch(
                self.key[view].project, batch.clips[view][:, clip], step_state.generator()
            )
            for view in self.views
        }

    def loss(self, score_BM: Tensor) -> Tensor:
        """Computes InfoNCE of one view's queries against the other view's keys."""
        queries, candidates = score_BM.shape
        positive_BM = own_key_alone(queries, candidates, device=score_BM.device)
        return mil_nce(score_BM, positive_BM)

    def after_step(self, step_state: StepState, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            self.queue.enqueue(**{name: gather(rows) for name, rows in output.state.items()})

    @torch.no_grad()
    def metrics(
        self, batch: ClipBatch, k: dict[str, Tensor], score: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns top-1 of the own key over both directions, queue fill, and each view's kNN."""
        top1 = [(s.argmax(1) == 0).float().mean() for s in score.values()]
        return {
            "top1": torch.stack(top1).mean(),
            "queue_fill": self.queue.share_filled(),
            **self.neighbours(batch, k),
        }

    def neighbours(self, batch: ClipBatch, k: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the online kNN of each view, and their mean."""
        other_BK = self.queue.valid() & (batch.source[:, None] != self.queue.source)
        knn = {
            f"knn_{view}": nearest_has_same_label(
                k[view], batch.label, getattr(self.queue, view), self.queue.label, other_BK
            )
            for view in self.views
        }
        return {
            "knn": torch.stack(list(knn.values())).mean(),
            **knn,
        }
