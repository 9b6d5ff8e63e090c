"""Dense predictive coding: predicts the features of later blocks from those of earlier blocks.

Each place of the feature map is predicted by itself (Han et al. 2019, DPC; with unit features and
a temperature as in Rai et al. 2021, CoCon).

Legend: B clips, N blocks of which the last P are predicted, D channels, H and W places,
M = B·P·H·W predictions on a rank, V·M targets on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.backbones import Encoder
from vidssl.backbones.dpc_context import unit_channels
from vidssl.base import distributed
from vidssl.base.distributed import gather_with_gradient
from vidssl.base.errors import UsageError, require
from vidssl.base.text import counted
from vidssl.clips.batch import ClipBatch
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState
from vidssl.methods.modules.metrics import nearest_has_same_label, paired_cosines
from vidssl.methods.modules.seeded_dropout import seeded_dropout


@dataclass(frozen=True)
class CPCConfig:
    """CPC's hyperparameters; defaults: CoCon's published code.

    Attributes:
        predict: P, how many of a clip's last blocks are predicted.
        temperature: τ. CoCon divides both factors by 0.07, which is one division by 0.0049;
            DPC has none, which is 1.
        unit: True: features, predictions and states at unit length (CoCon); False: as they are,
            with a ReLU before the GRU (DPC).
        dropout: of the GRU's state at every step.
    """

    predict: int = 3
    temperature: float = 0.0049
    unit: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require("predict", self.predict, self.predict >= 1, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "above 0")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)")


class Prediction(NamedTuple):
    """Features of all blocks z [B, N, D, H, W], and predictions of the last P [B, P, D, H, W]."""

    z: Tensor
    pred: Tensor

    @property
    def target(self) -> Tensor:
        """The features that `pred` should equal [B, P, D, H, W]."""
        return self.z[:, -self.pred.shape[1] :]


class CPC(Method):
    """Every predicted place must find its own feature among all places, steps and clips."""

    name = "cpc"
    Config = CPCConfig
    context = "gru"

    def __init__(self, config: CPCConfig, encoder: Encoder) -> None:
        super().__init__()
        check_encoder(self.name, config, encoder)
        self.config = config
        self.view = encoder.spec.view
        self.encoder = encoder

    @classmethod
    def build(cls, config: CPCConfig, encoders: Mapping[str, Encoder], seed: int) -> CPC:
        (encoder,) = encoders.values()
        return cls(config, encoder)

    @classmethod
    def check_blocks(cls, config: CPCConfig, blocks: int) -> None:
        check_blocks(cls.name, config, blocks)

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view,), clips=1)

    @property
    def encoders(self) -> dict[str, Encoder]:
        return {self.view: self.encoder}

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        drop = seeded_dropout(self.config.dropout if self.training else 0.0, step_state)
        found = predict(self.encoder, batch.clips[self.view], self.config, drop)
        score_MM = dense_scores(found.pred, found.target, self.config.temperature)
        features_BD = clip_features(found.z)
        return StepOutput(
            loss=dense_nce(score_MM),
            metrics=top_shares(score_MM)
            | prediction_cosines(found)
            | {"knn": batch_neighbour(features_BD, batch)},
            features=features_BD,
        )


def check_encoder(name: str, config: CPCConfig, encoder: Encoder) -> None:
    """Checks that an encoder can predict: it has a context and no projection head.

    A head would get no gradient, which stops training over several processes.

    Raises:
        UsageError: it cannot.
    """
    if encoder.context is None or encoder.spec.project is not None:
        raise UsageError(f"{name} needs an encoder with a context and without a projection head")
    check_blocks(name, config, encoder.spec.blocks)


def check_blocks(name: str, config: CPCConfig, blocks: int) -> None:
    """Checks that blocks are left from which the last ones can be predicted.

    Raises:
        UsageError: there are none.
    """
    if blocks <= config.predict:
        raise UsageError(
            f"{name} foretells {counted(config.predict, 'block')} and must see at least one "
            f"before: give clips more than {config.predict}, such as --set blocks=8, not {blocks}"
        )


def predict(
    encoder: Encoder,
    x_BNCTHW: Tensor,
    config: CPCConfig,
    drop: Callable[[Tensor], Tensor],
) -> Prediction:
    """Computes z = f(x), and the last P blocks from the context of the first N − P (DPC §3.1)."""
    z_BNDHW = encoder.block_maps(x_BNCTHW)
    if config.unit:
        z_BNDHW = unit_channels(z_BNDHW, 2)
    seen = z_BNDHW[:, : -config.predict]
    predicted = encoder.context.rollout(  # type: ignore[operator, union-attr]
        seen, config.predict, unit=config.unit, drop=drop
    )
    return Prediction(z_BNDHW, predicted.pred)


def dense_scores(pred_BPDHW: Tensor, target_BPDHW: Tensor, temperature: float) -> Tensor:
    """Computes ẑ·z / τ of each prediction of this rank and each target of all ranks [M, V·M]."""
    pred_MD = _places(pred_BPDHW)
    target_MD = _places(gather_with_gradient(target_BPDHW))
    return pred_MD @ target_MD.T / temperature


def _places(x_BPDHW: Tensor) -> Tensor:
    return x_BPDHW.permute(0, 1, 3, 4, 2).flatten(0, 3)


def own_column(score_MM: Tensor) -> Tensor:
    """Returns the column of each prediction's own target [M], after those of earlier ranks."""
    rows = len(score_MM)
    return distributed.rank() * rows + torch.arange(rows, device=score_MM.device)


def dense_nce(score_MM: Tensor) -> Tensor:
    """Computes the cross-entropy of predictions' scores; the own target is right (DPC eq. 5)."""
    return F.cross_entropy(score_MM, own_column(score_MM))


def clip_features(z_BNDHW: Tensor) -> Tensor:
    """Returns one unit vector per clip [B, D], detached: the mean over blocks and places."""
    return F.normalize(z_BNDHW.detach().mean(dim=(1, 3, 4)), dim=1)


# ── health ───────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def top_shares(score_MM: Tensor) -> dict[str, Tensor]:
    """Returns how often the own target has the best score of all, or one of the best three."""
    own_M1 = own_column(score_MM)[:, None]
    better_M = (score_MM > score_MM.gather(1, own_M1)).sum(1)
    return {"top1": (better_M < 1).float().mean(), "top3": (better_M < 3).float().mean()}


@torch.no_grad()
def prediction_cosines(found: Prediction) -> dict[str, Tensor]:
    """Returns the mean cosine of predictions with their own targets, and with all other targets."""
    return paired_cosines(_places(found.pred), _places(found.target))


@torch.no_grad()
def batch_neighbour(features_BD: Tensor, batch: ClipBatch) -> Tensor:
    """Returns how often the batch's nearest clip of another source has the clip's label, or NaN."""
    other_BB = batch.source[:, None] != batch.source
    return nearest_has_same_label(features_BD, batch.label, features_BD, batch.label, other_BB)
