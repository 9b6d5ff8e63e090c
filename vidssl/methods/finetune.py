"""Finetuning: an encoder and a classifier above it, trained on labels end to end.

There are two heads, as published. Encoders without a context (CoCLR, ViCC): pooled features →
dropout → linear, initialised from N(0, 0.01). Encoders with a context (DPC, CoCon): all blocks'
maps → GRU → the last state's mean over places → BatchNorm → dropout → linear, initialised
orthogonal.

Legend: B clips, N blocks, D feature width, H and W places, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import VidsslError, require
from vidssl.clips.batch import ClipBatch
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState
from vidssl.methods.modules.seeded_dropout import seeded_dropout

ENCODER = "encoder."


@dataclass(frozen=True)
class FinetuneConfig:
    """How an encoder is finetuned; defaults: CoCLR's published code.

    Attributes:
        classes: K; the stage sets it to those of the labels.
        dropout: before the linear layer.
        backbone_rate: the encoder's share of the learning rate; the head has the whole rate.
        relu: only with a context: a ReLU before the GRU (DPC; CoCon has none).
        state_dropout: only with a context: dropout of the GRU's state at every step.
        freeze_context: only with a context: the GRU is not trained (a slip of CoCon's published
            code).
    """

    classes: int = 101
    dropout: float = 0.9
    backbone_rate: float = 0.1
    relu: bool = False
    state_dropout: float = 0.1
    freeze_context: bool = False

    def __post_init__(self) -> None:
        require("classes", self.classes, self.classes >= 2, "at least 2")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)")
        require("state_dropout", self.state_dropout, 0 <= self.state_dropout < 1, "in [0, 1)")
        require("backbone_rate", self.backbone_rate, self.backbone_rate >= 0, "0 or more")


def no_dropout(x: Tensor) -> Tensor:
    """Returns its argument."""
    return x


class Classifier(nn.Module):
    """An encoder with a classifier above it.

    The encoder's projection head is removed, and the part of its context that predicts is not
    trained: a classifier uses neither, and parameters without a gradient stop training over
    several processes.

    Args:
        generator: draws the first weights of the linear layer.
    """

    def __init__(
        self, encoder: Encoder, config: FinetuneConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.encoder.drop_head()
        self.fc = nn.Linear(encoder.dim, config.classes)
        nn.init.zeros_(self.fc.bias)
        if encoder.context is None:
            self.norm: nn.Module = nn.Identity()
            nn.init.normal_(self.fc.weight, 0, 0.01, generator=generator)
        else:
            self.norm = nn.BatchNorm1d(encoder.dim)
            nn.init.orthogonal_(self.fc.weight, generator=generator)
            encoder.context.predict.requires_grad_(False)  # type: ignore[union-attr, operator]
            if config.freeze_context:
                encoder.context.requires_grad_(False)

    # The interface of vidssl.evaluation.features.extract: spec, width, and a row for each window.

    @property
    def spec(self) -> EncoderSpec:
        """The encoder's spec."""
        return self.encoder.spec

    @property
    def dim(self) -> int:
        """K."""
        return self.config.classes

    def embed(self, x_BNCTHW: Tensor) -> Tensor:
        """Returns each window's class probabilities [B, K]."""
        return self(x_BNCTHW).softmax(1)

    def forward(
        self,
        x_BNCTHW: Tensor,
        drop: Callable[[Tensor], Tensor] = no_dropout,
        drop_state: Callable[[Tensor], Tensor] = no_dropout,
    ) -> Tensor:
        """Returns scores [B, K].

        Args:
            drop: dropout before the linear layer.
            drop_state: dropout of the context's states.
        """
        return self.score(self.summary(x_BNCTHW, drop_state), drop)

    def score(self, h_BD: Tensor, drop: Callable[[Tensor], Tensor] = no_dropout) -> Tensor:
        """Returns the scores [B, K] of what :meth:`summary` returned."""
        scores: Tensor = self.fc(drop(self.norm(h_BD)))
        return scores

    def summary(
        self, x_BNCTHW: Tensor, drop_state: Callable[[Tensor], Tensor] = no_dropout
    ) -> Tensor:
        """Returns one vector per clip [B, D]: pooled features, or the context's last state."""
        if self.encoder.context is None:
            return self.encoder.embed(x_BNCTHW)
        z_BNDHW = self.encoder.block_maps(x_BNCTHW)
        if self.config.relu:
            z_BNDHW = F.relu(z_BNDHW)
        h_BDHW = self.encoder.context.look(z_BNDHW, drop_state)  # type: ignore[operator]
        return h_BDHW.mean(dim=(2, 3))

    def head(self) -> dict[str, Tensor]:
        """Returns the tensors of everything above the encoder."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith(ENCODER)}

    def load_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what :meth:`head` returned.

        Raises:
            VidsslError: the tensors are not those of this classifier.
        """
        wanted = {name: value.shape for name, value in self.head().items()}
        if wanted != {name: value.shape for name, value in tensors.items()}:
            raise VidsslError(
                f"these tensors are no classifier of {self.config.classes} classes above a "
                f"{self.spec.backbone}: {', '.join(sorted(tensors)) or 'there are none'}"
            )
        self.load_state_dict(dict(tensors), strict=False)


class Finetune(Method):
    """Cross-entropy of a classifier's scores; the encoder learns at a rate of its own."""

    name = "finetune"
    Config = FinetuneConfig
    supervised = True

    def __init__(self, config: FinetuneConfig, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.view = encoder.spec.view
        self.classifier = self.make_classifier(encoder, torch.Generator().manual_seed(seed))

    def make_classifier(self, encoder: Encoder, generator: torch.Generator) -> Classifier:
        """Returns the network; the generator draws the weights of its linear layer."""
        return Classifier(encoder, self.config, generator)

    @classmethod
    def build(cls, config: FinetuneConfig, encoders: Mapping[str, Encoder], seed: int) -> Finetune:
        (encoder,) = encoders.values()
        return cls(config, encoder, seed)

    @classmethod
    def check_blocks(cls, config: FinetuneConfig, blocks: int) -> None:
        """Accepts any number: a classifier sees all blocks."""

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view,), clips=1)

    @property
    def encoders(self) -> dict[str, Encoder]:
        return {self.view: self.classifier.encoder}

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """The classifier without its encoder."""
        return self.classifier.head()

    def parameter_groups(self) -> list[dict[str, Any]]:
        named = list(self.classifier.named_parameters())
        encoder = [p for name, p in named if name.startswith(ENCODER)]
        head = [p for name, p in named if not name.startswith(ENCODER)]
        return [{"params": head}, {"params": encoder, "share": self.config.backbone_rate}]

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        config, training = self.config, self.training
        drop = seeded_dropout(config.dropout if training else 0.0, step_state)
        drop_state = seeded_dropout(config.state_dropout if training else 0.0, step_state, number=1)
        h_BD = self.classifier.summary(batch.clips[self.view], drop_state)
        output = self.output(self.classifier.score(h_BD, drop), batch.label)
        return replace(output, features=F.normalize(h_BD.detach(), dim=1))

    def output(self, score_BK: Tensor, label_B: Tensor) -> StepOutput:
        """Returns the loss of the scores, and the share that are right."""
        right_B = score_BK.detach().argmax(1) == label_B
        return StepOutput(
            loss=F.cross_entropy(score_BK, label_B), metrics={"top1": right_B.float().mean()}
        )
