"""TV-L1 in plain PyTorch: the reference for the kernels, and what computes it on a CPU.

It minimises an energy, with ∇ per component of the flow u and ρ linearised at the flow u₀ of the
warp:

    E(u) = Σ |∇u₁| + |∇u₂| + λ |ρ(u)|,    ρ(u) = I₁(x + u₀) + ∇I₁(x + u₀)·(u − u₀) − I₀(x)

Scales go from coarse to fine. Each scale has some warps; each warp iterates two half steps until
the flow changes no more, with a median filter of the flow every `inner_iterations`:

    u ← v + θ div p,   v = u − clip(ρ(u)/|∇I₁|², −λθ, λθ) ∇I₁            (data, pixel by pixel)
    p ← (p + τ/θ ∇u) / (1 + τ/θ |∇u|)                                    (smoothness)

Details that influence the result are OpenCV's: the dual variables p are kept from warp to warp and
set to 0 at each scale; warping is bicubic (a = −0.75) with zeros beyond the border; pictures are
scaled down without smoothing.

Legend: B pairs, 2 components of flow (u to the right, v downward), H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.optical_flow.tvl1.median import median_5x5
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.pyramid import enlarge_flow, pyramid

FLAT = float(torch.finfo(torch.float32).eps)  # a squared gradient below counts as this


@dataclass(frozen=True)
class Solution:
    """Flow of B pairs and the iterations it took.

    Attributes:
        flow_B2HW: float32, in pixels, from the first picture to the second.
        work_B: pixels times iterations of each pair, over all scales: int64.
    """

    flow_B2HW: Tensor
    work_B: Tensor


@dataclass
class WorkCounter:
    """Counts the work done so far, for measurements.

    Attributes:
        pairs: whose flow is finished.
        pixel_iterations: pixels times iterations of these, over all scales.
    """

    pairs: int = 0
    pixel_iterations: int = 0


@torch.no_grad()
def solve(before_BHW: Tensor, after_BHW: Tensor, parameters: Parameters) -> Solution:
    """Returns the flow of B pairs of grey pictures of one size.

    Each pair stops by itself, and its flow does not depend on the other pairs.

    Args:
        before_BHW: 0 to 255, of any dtype.
        after_BHW: of the same shape.
    """
    sizes = parameters.scales(*before_BHW.shape[1:])
    before = pyramid(before_BHW.float(), sizes, parameters.scale_step)
    after = pyramid(after_BHW.float(), sizes, parameters.scale_step)
    batch = before_BHW.shape[0]
    u_B2HW = before_BHW.new_zeros((batch, 2, *sizes[-1]), dtype=torch.float32)
    work_B = torch.zeros(batch, dtype=torch.int64, device=before_BHW.device)
    for level in reversed(range(len(sizes))):
        if level < len(sizes) - 1:
            flat = enlarge_flow(u_B2HW.flatten(0, 1), sizes[level], parameters.scale_step)
            u_B2HW = flat.unflatten(0, (batch, 2))
        u_B2HW, iterations_B = _solve_scale(before[level], after[level], u_B2HW, parameters)
        work_B += iterations_B * (sizes[level][0] * sizes[level][1])
    return Solution(u_B2HW, work_B)


def _solve_scale(
    before_BHW: Tensor, after_BHW: Tensor, u_B2HW: Tensor, parameters: Parameters
) -> tuple[Tensor, Tensor]:
    """Returns the flow at one scale from that of the coarser one, and iterations int64 [B]."""
    moving_B3HW = torch.stack([after_BHW, *centred_gradient(after_BHW)], dim=1)
    p_B22HW = torch.zeros_like(u_B2HW).unsqueeze(2).repeat(1, 1, 2, 1, 1)
    iterations_B = torch.zeros(len(u_B2HW), dtype=torch.int64, device=u_B2HW.device)
    for _ in range(parameters.warps):
        data_B3HW = linearise(before_BHW, moving_B3HW, u_B2HW)
        iterations_B += _relax(u_B2HW, p_B22HW, data_B3HW, parameters)
    return u_B2HW, iterations_B


def _relax(u_B2HW: Tensor, p_B22HW: Tensor, data_B3HW: Tensor, parameters: Parameters) -> Tensor:
    """Iterates each pair until it stops; changes u and p, returns the iterations int64 [B]."""
    tolerance = parameters.tolerance(*u_B2HW.shape[2:])
    iterations_B = torch.zeros(len(u_B2HW), dtype=torch.int64, device=u_B2HW.device)
    left = torch.arange(len(u_B2HW), device=u_B2HW.device)  # pairs that have not stopped
    u, p, data = u_B2HW.clone(), p_B22HW.clone(), data_B3HW
    for _ in range(parameters.outer_iterations):
        u = median_5x5(u.flatten(0, 1)).view_as(u)
        for _ in range(parameters.inner_iterations):
            u, p, error = step(u, p, data, parameters)
            iterations_B[left] += 1
            going = error > tolerance
            if not going.all():
                u_B2HW[left[~going]], p_B22HW[left[~going]] = u[~going], p[~going]
                left, u, p, data = left[going], u[going], p[going], data[going]
                if not len(left):
                    return iterations_B
    u_B2HW[left], p_B22HW[left] = u, p
    return iterations_B


# ── equations


def linearise(before_BHW: Tensor, moving_B3HW: Tensor, u_B2HW: Tensor) -> Tensor:
    """Returns [B, 3, H, W]: ∇I₁ (x, then y) at x + u, and the part of ρ that u does not change.

    Args:
        moving_B3HW: the second picture and its gradient.
        u_B2HW: the flow at which ρ is linearised.
    """
    value, gx, gy = warp(moving_B3HW, u_B2HW).unbind(1)
    constant = value - gx * u_B2HW[:, 0] - gy * u_B2HW[:, 1] - before_BHW
    return torch.stack([gx, gy, constant], dim=1)


def step(
    u_B2HW: Tensor, p_B22HW: Tensor, data_B3HW: Tensor, parameters: Parameters
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns u and p after one iteration, and Σ |change of u|² of each pair, float64 [B]."""
    gradient_B2HW, constant_BHW = data_B3HW[:, :2], data_B3HW[:, 2]
    square_BHW = gradient_B2HW.square().sum(1).clamp_(min=FLAT)
    rho_BHW = constant_BHW + (gradient_B2HW * u_B2HW).sum(1)
    most = parameters.data_step
    shift_BHW = (rho_BHW / square_BHW).clamp_(-most, most)
    v_B2HW = u_B2HW - shift_BHW[:, None] * gradient_B2HW
    new_B2HW = v_B2HW.add_(divergence(p_B22HW), alpha=parameters.coupling)

    du_B22HW = forward_gradient(new_B2HW).mul_(parameters.dual_step)
    length_B2HW = du_B22HW.square().sum(2).sqrt_().add_(1)
    p_B22HW = du_B22HW.add_(p_B22HW).div_(length_B2HW[:, :, None])

    # Rows first: how a long sum is split must not depend on how many pairs there are.
    rows_BH = (new_B2HW - u_B2HW).square_().sum((1, 3))
    return new_B2HW, p_B22HW, rows_BH.double().sum(1)


def divergence(p_B22HW: Tensor) -> Tensor:
    """Returns [B, 2, H, W] by backward differences; what lies before the first pixel is zero."""
    across, down = p_B22HW.unbind(2)
    total = across + down
    total[..., 1:] -= across[..., :-1]
    total[..., 1:, :] -= down[..., :-1, :]
    return total


def forward_gradient(u_B2HW: Tensor) -> Tensor:
    """Returns [B, 2, 2, H, W]: differences to the next pixel across and down, zero at the last."""
    gradient = torch.zeros_like(u_B2HW).unsqueeze(2).repeat(1, 1, 2, 1, 1)
    torch.sub(u_B2HW[..., 1:], u_B2HW[..., :-1], out=gradient[:, :, 0, :, :-1])
    torch.sub(u_B2HW[..., 1:, :], u_B2HW[..., :-1, :], out=gradient[:, :, 1, :-1])
    return gradient


def centred_gradient(x_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Returns half the difference between the neighbours, across and down; borders repeat."""
    x = F.pad(x_BHW[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]).mul_(0.5)
    down = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]).mul_(0.5)
    return across, down


def warp(x_BCHW: Tensor, u_B2HW: Tensor) -> Tensor:
    """Returns x at each pixel's place plus its flow: bicubic with a = −0.75, zeros beyond."""
    height, width = x_BCHW.shape[2:]
    x = torch.arange(width, device=x_BCHW.device) + u_B2HW[:, 0]
    y = torch.arange(height, device=x_BCHW.device)[:, None] + u_B2HW[:, 1]
    # To -1..1 from the first pixel's centre to the last one's, as grid_sample wants it.
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    return F.grid_sample(x_BCHW, grid, mode="bicubic", padding_mode="zeros", align_corners=True)
