"""Stops a training whose loss or weights are no finite numbers any more, and says where that began.

Losses stay on the device until the figures of the log are fetched, so that no step waits for it.
Until then the steps are remembered with their learning rates and videos.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidssl.base import distributed
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.finite_values import first_not_finite
from vidssl.base.text import counted
from vidssl.clips.batch import ClipBatch
from vidssl.engine.resume import DIVERGED_FILE
from vidssl.methods import StepOutput, StepState

DIVERGED_FORMAT = 1
NAMED = 8  # videos in the sentence; all of them are in the file

NameVideos = Callable[[Sequence[int]], list[str]]


def numbers_as_names(numbers: Sequence[int]) -> list[str]:
    """Returns the numbers of videos as texts, where their ids are not known."""
    return [f"number {number}" for number in numbers]


@dataclass(frozen=True)
class _Step:
    """A step since the last look.

    Attributes:
        step, epoch: counted from 1.
        videos: numbers of this rank's videos in their pack, one tensor for each micro-batch.
        broken: whether a loss was not finite, a scalar on the device; None: there was no loss.
    """

    step: int
    epoch: int
    rate: float
    videos: list[Tensor]
    broken: Tensor | None


class DivergenceWatch:
    """Remembers the last steps, and ends training when one of them has diverged.

    Args:
        folder: gets diverged.pt: the state when it was noticed.
        name_videos: returns the ids of videos by their numbers in the pack.
    """

    def __init__(
        self,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        name_videos: NameVideos = numbers_as_names,
    ) -> None:
        self._method, self._optimizer, self._folder = method, optimizer, folder
        self._name_videos = name_videos
        self._steps: list[_Step] = []

    def note(
        self,
        step_state: StepState,
        rate: float,
        micro_batches: Sequence[ClipBatch],
        outputs: Sequence[StepOutput],
    ) -> None:
        """Remembers a step; asks the device nothing."""
        losses = [output.loss for output in outputs if output.loss is not None]
        broken = ~torch.stack(losses).isfinite().all() if losses else None
        videos = [batch.index for batch in micro_batches]
        self._steps.append(_Step(step_state.step + 1, step_state.epoch + 1, rate, videos, broken))

    def check_losses(self) -> None:
        """Looks at the losses since the last look. Every rank must call it at the same steps.

        Raises:
            VidsslError: one was not finite, on any rank.
        """
        with_loss = [step for step in self._steps if step.broken is not None]
        broken = torch.stack([s.broken for s in with_loss]).tolist() if with_loss else []  # type: ignore[misc]
        first = next((s.step for s, b in zip(with_loss, broken, strict=True) if b), None)
        if distributed.any_rank(first is not None):
            found = [step for step in distributed.all_ranks(first) if step is not None]
            (step,) = [s for s in self._steps if s.step == min(found)]
            self._fail("the loss is no finite number any more, first", step)
        del self._steps[:-1]

    def check_weights(self) -> None:
        """Looks at all parameters and buffers, such as BatchNorm's running statistics.

        Every rank must call it at the same steps.

        Raises:
            VidsslError: a value of one is not finite, on any rank.
        """
        named = dict(self._method.named_parameters()) | dict(self._method.named_buffers())
        name = first_not_finite(named)
        if distributed.any_rank(name is not None):
            (name, *_) = [n for n in distributed.all_ranks(name) if n is not None]
            self._fail(f"{name} has values that are no finite numbers, found", self._steps[-1])

    def _fail(self, what: str, step: _Step) -> None:
        """Saves the state and raises the error. All ranks are here."""
        numbers = [int(n) for batch in step.videos for n in batch.tolist()]
        of_ranks = distributed.all_ranks(numbers)
        videos = self._name_videos([number for numbers in of_ranks for number in numbers])
        where = self._save(what, step, videos) if distributed.rank() == 0 else ""
        where = distributed.from_rank_zero(where)  # no rank ends before the file is written
        named = ", ".join(videos[:NAMED])
        more = f" and {counted(len(videos) - NAMED, 'other')}" if len(videos) > NAMED else ""
        raise VidsslError(
            f"training has diverged: {what} in step {step.step} (epoch {step.epoch}) at a "
            f"learning rate of {step.rate:.6g}, on the videos {named}{more}; {where}; a lower "
            "rate (--set lr=…) or a warm-up (--set warmup_epochs=…) usually helps"
        )

    def _save(self, what: str, step: _Step, videos: list[str]) -> str:
        state: dict[str, Any] = {
            "format": DIVERGED_FORMAT,
            "problem": what,
            "step": step.step,
            "epoch": step.epoch,
            "lr": step.rate,
            "videos": videos,
            "seen_after_step": self._steps[-1].step,
            "parameters": {n: p.detach().cpu() for n, p in self._method.named_parameters()},
            "buffers": {n: b.detach().cpu() for n, b in self._method.named_buffers()},
            "optimizer": self._optimizer.state_dict(),
        }
        path = self._folder / DIVERGED_FILE
        file = io.BytesIO()
        torch.save(state, file)
        try:
            atomic_write(path, file.getvalue())
        except (VidsslError, OSError) as error:  # must not hide why training has ended
            return f"its state could not be saved ({error})"
        return f"the state after step {self._steps[-1].step} is in {path}"
