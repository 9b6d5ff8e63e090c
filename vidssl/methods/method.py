"""The contract between a method and the engine.

In one optimiser step the engine calls, in this order:

    before_forward(step_state)           the key encoder moves, prototype rows get unit length
    forward(batch, step_state)           once per micro-batch → StepOutput
    after_backward(step_state)           frozen prototypes drop their gradient   (only with a loss)
    after_step(step_state, outputs)      queues take up the step's keys

Rules, each of which a test checks for every method:

- State changes only in train mode, and `forward` changes nothing but BatchNorm statistics.
- `loss=None` means that queues are still being filled; the engine then skips the optimiser.
- Whenever there is a loss, every trainable parameter gets a gradient.
- Queues, prototypes and frozen partners are buffers or submodules, so that `state_dict()` is
  complete.
- Random numbers come only from the generator of the step state.
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


def projection_width(method_name: str, encoder: Encoder) -> int:
    """Returns P, the width of an encoder's projection.

    Args:
        method_name: of the method that needs it, for the error.

    Raises:
        UsageError: it has no projection head.
    """
    if encoder.spec.project is None:
        view = encoder.spec.view
        raise UsageError(f"{method_name} needs projection heads: the {view} encoder has none")
    return encoder.spec.project


@dataclass(frozen=True)
class StepState:
    """The position of one optimiser step in the run, and the run's seed.

    Attributes:
        epoch, step: counted from 0; steps from the start of the run.
    """

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
    """The output of `forward` for one micro-batch.

    Attributes:
        loss: scalar with gradient, or None while the method is still filling its queues.
        metrics: detached scalars on the device; NaN where a metric is not defined.
        state: detached tensors that `after_step` needs.
        features: detached unit embeddings [B, P] for the health figures; {view: embeddings}
            where the encoders of several views are trained.
    """

    loss: Tensor | None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | Mapping[str, Tensor] | None = None

    def detached(self) -> StepOutput:
        """Returns the same without the graph, so that its memory is freed."""
        loss = None if self.loss is None else self.loss.detach()
        return StepOutput(loss, self.metrics, self.state, self.features)


@dataclass(frozen=True)
class BatchSpec:
    """The contents of the batches that a method needs.

    Attributes:
        clips: how many are drawn from each video, independently.
        last_only: views of which it reads only the last clip; a batch has no other clip of them.
    """

    views: tuple[str, ...]
    clips: int = 2
    last_only: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """A method: the networks it trains, its state, its loss.

    Attributes:
        name: of the method in recipes and checkpoints.
        Config: a frozen dataclass of its hyperparameters.
        joint: it trains the encoders of all its views; else only that of the first view, and the
            encoders of other views are frozen partners.
        view_count: how many views it trains at once where it is joint; None: any number.
        supervised: it learns from labels.
        queues_batches: its queue, if it has one, takes up whole batches, so that it cannot be
            shorter than a batch.
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
            encoders: of each view, the trained one first.
            seed: of the random values that the method itself starts from, such as queues and
                prototypes.
        """

    @classmethod
    def check_blocks(cls, config: Any, blocks: int) -> None:
        """Checks that the method can learn from clips that are cut into so many blocks.

        Raises:
            UsageError: it cannot.
        """
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
        """The trained encoder of each view: what a checkpoint holds when training ends."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the parameters as an optimiser takes them, each group once.

        A group may have a `share` of the learning rate; without one it has the whole. Parameters
        that are not trainable may be among them.
        """
        return [{"params": list(self.parameters())}]

    def chance_loss(self, samples: int) -> float | None:
        """Returns the loss of a network that cannot tell candidates apart; None: not known.

        Args:
            samples: of one micro-batch on one rank.
        """
        return None

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """Tensors beside the encoders that a later run may start from; empty for most methods."""
        return {}

    def load_extra_state(self, extra_state: Mapping[str, Tensor]) -> None:
        """Loads what it can use of the :attr:`extra_state` of an earlier run of any method."""

    def assume_queue_full(self) -> None:
        """Marks queues as full, whatever they hold, so that the steps of a trial have a loss."""

    @abstractmethod
    def forward(self, batch: ClipBatch, step_state: StepState) -> StepOutput:
        """Computes the loss of one micro-batch."""

    def before_forward(self, step_state: StepState) -> None:
        """Runs once per optimiser step, before its first forward."""

    def after_backward(self, step_state: StepState) -> None:
        """Runs between the last backward and the optimiser, when there was a loss."""

    def after_step(self, step_state: StepState, outputs: Sequence[StepOutput]) -> None:
        """Runs once per optimiser step (also a skipped one), after it."""
