"""Activation checkpointing (Chen et al. 2016): less memory for a third more time.

Activations are computed again in the backward pass instead of being kept. The second computation
does not update BatchNorm statistics, so results are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_activations(backbone: nn.Module) -> None:
    """Makes every block of a backbone keep only its input for the backward pass."""
    for block in blocks(backbone):
        block.forward = partial(_twice, block, block.forward)  # type: ignore[method-assign]


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yields a network's largest modules of more than one layer that are no plain Sequential."""
    for part in network.children():
        if type(part) is nn.Sequential:
            yield from blocks(part)
        elif next(part.children(), None) is not None:
            yield part


def _twice(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(x)

    def contexts():  # type: ignore[no-untyped-def]
        return nullcontext(), statistics_kept(block)

    return checkpoint(
        forward, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
    )


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within it, forward passes in train mode leave running statistics as they are."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Not track_running_stats=False: this pass must save as many tensors as the first one.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
