"""ViCC: two clips of one video predict each other's cluster assignment (Toering et al. 2022).

Legend: V embeddings of each video (of its two clips; with a partner also the partner's two),
B videos, P projection width, C prototypes, K remembered videos per rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidssl.backbones import Encoder
from vidssl.base.distributed import with_shuffled_batch, world_size
from vidssl.base.errors import UsageError, require
from vidssl.clips.batch import ClipBatch
from vidssl.methods.method import BatchSpec, Method, StepOutput, StepState, projection_width
from vidssl.methods.modules.feature_bank import RecentFeatures
from vidssl.methods.modules.metrics import nearest_has_same_label, prototype_usage
from vidssl.methods.modules.sinkhorn import sinkhorn


@dataclass(frozen=True)
class ViCCConfig:
    """ViCC's hyperparameters; defaults: one view on UCF101 in Toering et al. 2022.

    Attributes:
        prototypes: C.
        temperature: τ of the predictions; at least 0.025, so that a softmax of cosines stays
            above float32's smallest number.
        epsilon: ε of Sinkhorn-Knopp; at least 0.003, so that exp of a cosine over ε is within
            float64's range.
        sinkhorn_iterations: of Sinkhorn-Knopp.
        queue: past embeddings, over all ranks, that take part in the codes; 0: none.
        queue_from_epoch: the epoch from which embeddings are remembered; fractions count steps.
        freeze_prototypes_epochs: for so many epochs the prototypes do not change.
        published_gradient: True: gradient only through the first clip, as in the published code;
            False: through both, as in SwAV.
    """

    prototypes: int = 300
    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    queue: int = 1920
    queue_from_epoch: float = 200.0
    freeze_prototypes_epochs: float = 100.0
    published_gradient: bool = False

    def __post_init__(self) -> None:
        require("prototypes", self.prototypes, self.prototypes >= 2, "at least 2")
        require("temperature", self.temperature, self.temperature >= 0.025, "at least 0.025")
        require("epsilon", self.epsilon, self.epsilon >= 0.003, "at least 0.003")
        iterations = self.sinkhorn_iterations
        require("sinkhorn_iterations", iterations, iterations >= 1, "at least 1")
        require("queue", self.queue, self.queue >= 0, "at least 0")


class ViCC(Method):
    """Clips of one video get codes from common prototypes, and each predicts the other's code."""

    name = "vicc"
    queues_batches = False
    Config = ViCCConfig
    config: ViCCConfig
    count = 2  # V

    def __init__(self, config: ViCCConfig, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        width = projection_width(self.name, encoder)
        self.config = config
        self.view = encoder.spec.view
        self.encoder = encoder
        self.prototypes = _prototypes(width, config.prototypes, seed)
        self.recent = RecentFeatures(self.count, config.queue // world_size(), width)

    @classmethod
    def build(cls, config: ViCCConfig, encoders: Mapping[str, Encoder], seed: int) -> ViCC:
        (encoder,) = encoders.values()
        return cls(config, encoder, seed)

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(views=(self.view,))

    @property
    def encoders(self) -> dict[str, Encoder]:
        return {self.view: self.encoder}

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """The prototypes: a student across views starts from its own."""
        return {"prototypes": self.prototypes.weight.detach()}

    @torch.no_grad()
    def load_extra_state(self, extra_state: Mapping[str, Tensor]) -> None:
        prototypes_CP = extra_state.get("prototypes")
        if prototypes_CP is None:
            return
        if prototypes_CP.shape != self.prototypes.weight.shape:
            count, width = prototypes_CP.shape
            raise UsageError(
                f"{self.name} would start from {count} prototypes of width {width}, and has "
                f"{tuple(self.prototypes.weight.shape)}: give --set prototypes={count}"
            )
        self.prototypes.weight.copy_(prototypes_CP)

    @torch.no_grad()
    def before_forward(self, step_state: StepState) -> None:
        """Scales the rows of the prototypes to unit length, so that scores are cosines."""
        weight_CP = self.prototypes.weight
        weight_CP.copy_(F.normalize(weight_CP, dim=1))

    def chance_loss(self, samples: int) -> float | None:
        return math.log(self.config.prototypes)

    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        embeddings = self.embeddings(batch, step_state)
        score_VBC = torch.stack([self.prototypes(z_BP) for z_BP in embeddings])
        code_VBC = self.codes(score_VBC)
        # Not log_softmax: rounding as in the published code keeps agreement with it longer.
        log_p_VBC = (score_VBC / self.config.temperature).softmax(2).log()
        z_VBP = torch.stack(embeddings).detach()
        return StepOutput(
            loss=swapped_prediction(code_VBC, log_p_VBC),
            metrics=self.metrics(batch, z_VBP, code_VBC, log_p_VBC),
            state={"embeddings": z_VBP},
            features=z_VBP[0],
        )

    def embeddings(self, batch: ClipBatch, step_state: StepState) -> list[Tensor]:
        """Computes z_0 = f(x_1) and z_1 = f(x_2), each [B, P]."""
        x1, x2 = batch.clips[self.view].unbind(1)
        return [self.encoder.project(x1), self.second_clip(x2, step_state)]

    def second_clip(self, x2: Tensor, step_state: StepState) -> Tensor:
        """Computes f(x_2); the published code takes no gradient and shuffles the batch as MoCo."""
        if not self.config.published_gradient:
            return self.encoder.project(x2)
        with torch.no_grad():
            return with_shuffled_batch(self.encoder.project, x2, step_state.generator())

    @torch.no_grad()
    def codes(self, score_VBC: Tensor) -> Tensor:
        """Computes q_v = Sinkhorn(S_v / ε) over the batch and, once there are K, the remembered."""
        config, clips = self.config, score_VBC.shape[1]
        if self.recent.is_full():
            # Scored again: prototypes have moved since these embeddings were computed.
            score_VBC = torch.cat([self.prototypes(self.recent.rows), score_VBC], dim=1)
        return sinkhorn(score_VBC, config.epsilon, config.sinkhorn_iterations)[:, -clips:]

    def after_backward(self, step_state: StepState) -> None:
        """Drops the gradient of frozen prototypes, which DDP needs until here."""
        if step_state.epochs < self.config.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, step_state: StepState, outputs: Sequence[StepOutput]) -> None:
        if step_state.epochs >= self.config.queue_from_epoch:
            for output in outputs:
                self.recent.push(output.state["embeddings"])

    # ── health ──

    @torch.no_grad()
    def metrics(
        self, batch: ClipBatch, z_VBP: Tensor, code_VBC: Tensor, log_p_VBC: Tensor
    ) -> dict[str, Tensor]:
        """Returns how prototypes are used, how often the code is predicted, and the batch's kNN.

        `prototype_entropy` is the entropy of the batch's mean prediction over log C: 1 where all
        prototypes are used equally, 0 where it is always the same one. `prototype_usage` counts
        only the best prototype of each clip.
        """
        usage_C = log_p_VBC.exp().mean(dim=(0, 1))
        entropy = -torch.xlogy(usage_C, usage_C).sum()
        other_BB = batch.source[:, None] != batch.source
        return {
            "top1": (code_VBC[0].argmax(1) == log_p_VBC[1].argmax(1)).float().mean(),
            "prototype_entropy": entropy / math.log(len(usage_C)),
            "prototype_usage": prototype_usage(log_p_VBC[:2].flatten(0, 1)),  # the student's
            "knn": nearest_has_same_label(z_VBP[0], batch.label, z_VBP[0], batch.label, other_BB),
        }


def swapped_prediction(code_VBC: Tensor, log_p_VBC: Tensor) -> Tensor:
    """Computes 1/V Σ_i 1/(V−1) Σ_{j≠i} −mean_b Σ_c q_ibc log p_jbc (Toering et al. 2022)."""
    count, videos = code_VBC.shape[:2]
    cross_entropy_VV = -torch.einsum("ibc,jbc->ij", code_VBC, log_p_VBC) / videos
    other_VV = 1 - torch.eye(count, device=code_VBC.device)
    return (cross_entropy_VV * other_VV).sum() / (count * (count - 1))


def _prototypes(width: int, count: int, seed: int) -> nn.Linear:
    """Returns prototypes [C, P] without bias: nn.Linear's distribution, drawn with the seed."""
    prototypes = nn.Linear(width, count, bias=False)
    generator = torch.Generator().manual_seed(seed)
    nn.init.kaiming_uniform_(prototypes.weight, a=5**0.5, generator=generator)
    return prototypes
