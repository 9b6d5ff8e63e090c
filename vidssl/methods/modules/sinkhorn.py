"""Sinkhorn-Knopp: codes that use all prototypes equally (Caron et al. 2020, SwAV §3.2).

Legend: V embeddings of each clip, B clips per rank, C prototypes, W ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidssl.base.distributed import max_over_ranks, sum_over_ranks, world_size


@torch.no_grad()
def sinkhorn(score_VBC: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Returns every clip's code, a distribution over prototypes, without gradient.

    The rows and columns of Q = exp(S/ε) are scaled in turn. After the last iteration every clip
    has a mass of exactly 1, and every prototype nearly W·B/C of the mass of all ranks' clips. The
    V matrices are scaled independently of each other.

    Args:
        score_VBC: cosines of clips and prototypes, any number of leading dimensions.

    Returns:
        Codes like `score_VBC`; each row sums to 1.
    """
    # In float64, minus the largest score of all ranks, nothing overflows. The shift and the
    # published division by the total sum both cancel in the first scaling of prototypes.
    logit_VBC = score_VBC.double() / epsilon
    code_VBC = (logit_VBC - max_over_ranks(logit_VBC.amax(dim=(-2, -1), keepdim=True))).exp()
    prototypes, clips = score_VBC.shape[-1], score_VBC.shape[-2] * world_size()
    for _ in range(iterations):
        mass_V1C = sum_over_ranks(code_VBC.sum(-2, keepdim=True))
        code_VBC /= _positive(prototypes * mass_V1C)  # rows → 1/C, over all ranks
        code_VBC /= _positive(clips * code_VBC.sum(-1, keepdim=True))  # columns → 1/(W·B)
    return (code_VBC * clips).to(score_VBC.dtype)


def _positive(mass: Tensor) -> Tensor:
    """Returns the mass, above 0: a prototype that is far from all clips has none, and 0/0 is 0."""
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)
