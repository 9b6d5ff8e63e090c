"""CoCon: dense predictive coding in several views, which must agree on which blocks are similar.

Source: Rai et al. 2021.

Legend: B clips, N blocks, D channels, H and W places; K = B·N instances, on all ranks together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from vidssl.backbones import Encoder
from vidssl.backbones.dpc_context import unit_channels
from vidssl.base.distributed import gather_with_gradient
from vidssl.base.errors import UsageError, require
from vidssl.clips.batch import ClipBatch
from vidssl.methods.cpc import (
    CPCConfig,
    Prediction,
    batch_neighbour,
    check_blocks,
    check_encoder,
    clip_features,
    dense_nce,
    dense_scores,
    predict,
    top_shares,
)
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState
from vidssl.methods.modules.seeded_dropout import seeded_dropout

SYNC_NORMS = ("l1", "l2")


@dataclass(frozen=True)
class CoConConfig(CPCConfig):
    """CoCon's hyperparameters, beside those of each view's CPC.

    Attributes:
        sim_weight: of the loss that makes the same block similar in two views.
        sync_weight: of the loss that makes two views agree on how similar two blocks are.
        sync_norm: l1 as the published code, l2 as the paper's slides.
    """

    sim_weight: float = 10.0
    sync_weight: float = 10.0
    sync_norm: str = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        require("sim_weight", self.sim_weight, self.sim_weight >= 0, "0 or more")
        require("sync_weight", self.sync_weight, self.sync_weight >= 0, "0 or more")
        require("sync_norm", self.sync_norm, self.sync_norm in SYNC_NORMS, "l1 or l2")


class CoCon(Method):
    """L = Σ_v L_cpc + sim_weight·Σ_pairs L_sim + sync_weight·Σ_pairs L_sync.

    With a single view there are no pairs, and it is CPC.

    Args:
        encoders: one for each view, with equally many blocks, all trained.
    """

    name = "cocon"
    Config = CoConConfig
    context = "gru"
    joint = True

    def __init__(self, config: CoConConfig, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        for encoder in encoders.values():
            check_encoder(self.name, config, encoder)
        counts = {encoder.spec.blocks for encoder in encoders.values()}
        if len(counts) != 1:
            raise UsageError("the views of cocon must have equally many blocks in a clip")
        self.config = config
        self.views = nn.ModuleDict(encoders)

    @classmethod
    def build(cls, config: CoConConfig, encoders: Mapping[str, Encoder], seed: int) -> CoCon:
        return cls(config, encoders)

    @classmethod
    def check_blocks(cls, config: CoConConfig, blocks: int) -> None:
        check_blocks(cls.name, config, blocks)

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=tuple(self.views), clips=1)

    @property
    def encoders(self) -> dict[str, Encoder]:
        return dict(self.views.items())  # type: ignore[arg-type]

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        found = {view: self._predict(view, batch, step_state) for view in self.views}
        score = {
            view: dense_scores(f.pred, f.target, self.config.temperature)
            for view, f in found.items()
        }
        losses = {"cpc": torch.stack([dense_nce(score_MM) for score_MM in score.values()]).sum()}
        losses |= self._between({view: block_vectors(f.z) for view, f in found.items()})
        features = {view: clip_features(f.z) for view, f in found.items()}
        metrics = {name: loss.detach() for name, loss in losses.items()}
        for view, score_MM in score.items():
            metrics |= {f"{name}_{view}": share for name, share in top_shares(score_MM).items()}
        metrics["top1"] = torch.stack([metrics[f"top1_{view}"] for view in score]).mean()
        metrics |= {f"knn_{view}": batch_neighbour(x, batch) for view, x in features.items()}
        metrics["knn"] = torch.stack([metrics[f"knn_{view}"] for view in features]).mean()
        loss = losses["cpc"]
        if "sync" in losses:
            loss = (
                loss
                + self.config.sim_weight * losses["sim"]
                + self.config.sync_weight * losses["sync"]
            )
        return StepOutput(loss=loss, metrics=metrics, features=features)

    def _predict(self, view: str, batch: ClipBatch, step_state: StepState) -> Prediction:
        number = list(self.views).index(view)
        drop = seeded_dropout(self.config.dropout if self.training else 0.0, step_state, number)
        return predict(self.views[view], batch.clips[view], self.config, drop)  # type: ignore[arg-type]

    def _between(self, h: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns L_sim and L_sync, summed over unordered pairs of views; nothing for one view.

        Also the mean cosine of the same and of different blocks in two views.
        """
        if len(h) < 2:
            return {}
        # Unit vectors [K, D] of all ranks: every rank computes the same two losses.
        h = {view: unit_channels(gather_with_gradient(h_KD), 1) for view, h_KD in h.items()}
        pairs = list(combinations(h.values(), 2))
        cosine = [(a @ b.T).detach() for a, b in pairs]
        return {
            "sim": torch.stack([similarity_loss(a, b) for a, b in pairs]).sum(),
            "sync": torch.stack(
                [synchrony_loss(a, b, self.config.sync_norm) for a, b in pairs]
            ).sum(),
            "aligned": torch.stack([x_KK.diagonal().mean() for x_KK in cosine]).mean(),
            "unaligned": torch.stack([_others(x_KK).mean() for x_KK in cosine]).mean(),
        }


def block_vectors(z_BNDHW: Tensor) -> Tensor:
    """Returns one vector per block [B·N, D]: the largest value in each quarter, then their mean.

    For maps of 2, 4 and 7 places a side this equals the published chain of poolings, which does
    not pool other sizes; this is defined for every size.
    """
    z_KDHW = z_BNDHW.flatten(0, 1)
    quarters = [x.amax(dim=(2, 3)) for rows in _halves(z_KDHW, 2) for x in _halves(rows, 3)]
    return torch.stack(quarters).mean(0)


def _halves(x: Tensor, dim: int) -> Sequence[Tensor]:
    size = x.shape[dim]
    return (x,) if size == 1 else x.split([size // 2, size - size // 2], dim)


def synchrony_loss(h0_KD: Tensor, h1_KD: Tensor, norm: str = "l1") -> Tensor:
    """Computes L_sync: mean over (a, b) of |cos(h0_a, h0_b) − cos(h1_a, h1_b)|, or of its square.

    The equation in the slides compares h with c in its second term, which is a slip: each view is
    compared with itself. Rotating a view's features changes nothing.

    Args:
        h0_KD, h1_KD: unit vectors.
    """
    difference_KK = h0_KD @ h0_KD.T - h1_KD @ h1_KD.T
    return difference_KK.abs().mean() if norm == "l1" else difference_KK.square().mean()


def similarity_loss(h0_KD: Tensor, h1_KD: Tensor) -> Tensor:
    """Computes L_sim = ½·mean_a(1 − X_aa) + ½·mean_{a≠b} max(0, X_ab), X the views' cosines.

    It is the slides' hinge with margin 1 on 1 − cos; both kinds of pairs have the same weight.

    Args:
        h0_KD, h1_KD: unit vectors.
    """
    x_KK = h0_KD @ h1_KD.T
    return 0.5 * (1 - x_KK.diagonal()).mean() + 0.5 * _others(x_KK).clamp(min=0).mean()


def _others(x_KK: Tensor) -> Tensor:
    """Returns all entries except the diagonal [K·(K − 1)]."""
    count = len(x_KK)
    # Cut after each diagonal entry, a K×K matrix is K − 1 rows of K + 1 that each end with one.
    return x_KK.flatten()[1:].view(count - 1, count + 1)[:, :-1].flatten()
