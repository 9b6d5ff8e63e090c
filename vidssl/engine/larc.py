"""LARC: SGD with a learning rate of its own for each tensor (You et al. 2017).

It is the form of NVIDIA's apex with `clip=False`, which SwAV and ViCC use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class LARC(torch.optim.SGD):
    """SGD with momentum on g ← (g + λw)·η‖w‖ / (‖g‖ + λ‖w‖ + ε).

    A tensor with ‖w‖ = 0 or ‖g‖ = 0, such as a bias that begins at zero, keeps its plain gradient
    and has no weight decay in that step.

    Args:
        weight_decay: λ; it is part of the scaling, so SGD itself has no weight decay.
        trust: η.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum)
        for group in self.param_groups:
            group["larc_weight_decay"], group["trust"] = weight_decay, trust

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Scales all gradients in place, then steps as SGD does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if trained:
                scale_gradients(
                    trained, [p.grad for p in trained], group["larc_weight_decay"], group["trust"]
                )
        super().step()
        return loss


def scale_gradients(
    weights: list[Tensor], gradients: list[Tensor], weight_decay: float, trust: float
) -> None:
    """Applies the formula to all tensors at once, in place, without waiting for the device."""
    weight_norm = torch.stack(torch._foreach_norm(weights))
    gradient_norm = torch.stack(torch._foreach_norm(gradients))
    usual = (weight_norm > 0) & (gradient_norm > 0)
    ratio = trust * weight_norm / (gradient_norm + weight_decay * weight_norm + EPSILON)
    scale = torch.where(usual, ratio, 1.0)
    decay = torch.where(usual, weight_decay * ratio, 0.0)
    torch._foreach_mul_(gradients, list(scale.unbind()))
    torch._foreach_add_(gradients, torch._foreach_mul(weights, list(decay.unbind())))
