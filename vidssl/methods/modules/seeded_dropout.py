"""Dropout whose masks are a function of the step, so that a resumed run repeats them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vidssl.base import distributed
from vidssl.methods.method import StepState


def seeded_dropout(
    share: float, step_state: StepState, number: int = 0
) -> Callable[[Tensor], Tensor]:
    """Returns dropout seeded by the step and the rank.

    Args:
        number: of the network or layer, where several have dropout in one step.
    """
    if share == 0:
        return lambda h: h
    drawn = torch.randint(2**62, (), generator=step_state.generator())
    seed = int(drawn) + 1009 * distributed.rank() + number
    generators: dict[torch.device, torch.Generator] = {}

    def drop(h: Tensor) -> Tensor:
        if h.device not in generators:  # on the device, so that no masks are copied
            generators[h.device] = torch.Generator(h.device).manual_seed(seed)
        kept = torch.rand(h.shape, generator=generators[h.device], device=h.device) >= share
        return h * kept / (1 - share)

    return drop
