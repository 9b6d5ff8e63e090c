"""The contract between a method and the engine.

In one optimiser step the engine calls, in this order:

    before_forward(step_state)           key encoder moves, prototype rows renormalise
    forward(batch, step_state)           once per micro-batch → StepOutput
    after_backward(step_state)           frozen prototypes drop their gradient   (only with a loss)
    after_step(step_state, outputs)      queues take up what the step saw

Rules, each held by a test over every method: state changes only in train mode; `forward` changes
nothing but BatchNorm statistics; `loss=None` means "still filling" and the engine skips the
optimiser; whenever a loss exists every trainable parameter gets a gradient; queues, prototypes
and frozen partners are buffers or submodules, so that `state_dict()` is complete; randomness
comes only from the clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidssl.backbones import Encoder
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch


def projection_width(method: str, encoder: Encoder) -> int:
    """Returns P of an encoder.

    Raises:
        UsageError: it has no projection head.
    """
    if encoder.spec.project is None:
        view = encoder.spec.view
        raise UsageError(f"{method} needs projection heads: the {view} encoder has none")
    return encoder.spec.project


@dataclass(frozen=True)
class StepState:
    """Where training stands. `step` counts optimiser steps from the start of the run."""

    seed: int
    epoch: int
    step: int
    steps_per_epoch: int = 1

    @property
    def epochs(self) -> float:
        """Epochs done so far; fractions count steps within one."""
        return self.step / self.steps_per_epoch

    def generator(self) -> torch.Generator:
        """Returns a CPU generator seeded by (seed, step): the same on every rank."""
        # Any odd multiplier spreads consecutive steps; the modulus is what manual_seed takes.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) % 2**63)


@dataclass(frozen=True)
class StepOutput:
    """What one micro-batch gives.

    Attributes:
        loss: scalar with gradient, or None while the method is still filling its queues.
        metrics: detached scalars on the device; NaN where a metric has nothing to say.
        state: detached rows for `after_step`.
        features: detached unit embeddings [B, P] for the health figures; {view: embeddings}
            where the encoders of several views are trained.
    """

    loss: Tensor | None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | Mapping[str, Tensor] | None = None

    def detached(self) -> StepOutput:
        """Returns the same without the graph, so that its memory can go."""
        loss = None if self.loss is None else self.loss.detach()
        return StepOutput(loss, self.metrics, self.state, self.features)


@dataclass(frozen=True)
class BatchSpec:
    """What a method wants in its batches.

    Attributes:
        clips: drawn apart from one video.
        last_only: views of which it reads the last clip alone; a batch has no other of them.
    """

    views: tuple[str, ...]
    clips: int = 2
    last_only: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """A method: the networks it trains, its state, its loss.

    Attributes:
        name: of the method, as recipes and checkpoints know it.
        joint: it trains the encoders of all its streams; else that of the first stream alone,
            and what it is given of others are frozen partners.
        view_count: how many views it trains at once where it is joint; None: any number.
        supervised: it learns from labels.
        queues_batches: its queue, if it has one, takes up whole batches, and is no shorter.
        context: what its encoders need above the backbone instead of a projection head
            (:attr:`vidssl.backbones.EncoderSpec.context`); None: the head.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    joint: ClassVar[bool] = False
    view_count: ClassVar[int | None] = None
    supervised: ClassVar[bool] = False
    queues_batches: ClassVar[bool] = True
    context: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def build(cls, config: Any, encoders: Mapping[str, Encoder], seed: int) -> Method:
        """Makes the method with its networks.

        Args:
            config: a :attr:`Config`.
            encoders: of each stream, the trained one first.
            seed: of what the method itself starts from, such as queues and prototypes.
        """

    @classmethod
    def check_blocks(cls, config: Any, blocks: int) -> None:
        """Raises a :class:`UsageError` unless it can learn from clips cut into so many blocks."""
        if blocks != 1:
            raise UsageError(
                f"{cls.name} takes clips whole, and here they are cut into {blocks} blocks: "
                "cpc and cocon learn from those, or --set blocks=1"
            )

    @property
    @abstractmethod
    def batch_spec(self) -> BatchSpec:
        """What a batch must hold."""

    @property
    @abstractmethod
    def encoders(self) -> dict[str, Encoder]:
        """The trained encoder of each view: what is worth keeping when training ends."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the parameters as an optimiser takes them, each group once.

        A group may have a `share` of the learning rate; without one it has the whole. Parameters
        that are not trainable may be among them.
        """
        return [{"params": list(self.parameters())}]

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """What a later run may start from beside the encoders; empty for most methods."""
        return {}

    def load_extra_state(self, extra_state: Mapping[str, Tensor]) -> None:
        """Takes up what it can use of an earlier run's :attr:`extra_state`, of whatever method."""

    def assume_queue_full(self) -> None:
        """Takes queues for full, whatever they hold, so that a trial is of steps that train."""

    @abstractmethod
    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        """Computes the loss of one micro-batch."""

    def before_forward(self, step_state: StepState) -> None:
        """Runs once per optimiser step, before its first forward."""

    def after_backward(self, step_state: StepState) -> None:
        """Runs between the last backward and the optimiser, when there was a loss."""

    def after_step(self, step_state: StepState, outputs: Sequence[StepOutput]) -> None:
        """Runs once per optimiser step (also a skipped one), after it."""
