"""Noise-contrastive estimation: scores of candidates, and losses over several positives.

Legend: B clips, P projection width, K queue length, M = 1 + K candidates of which the first is
the clip's own key.
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrast_scores(q_BP: Tensor, k_BP: Tensor, queue_KP: Tensor, temperature: float) -> Tensor:
    """Computes [q·k, q·queue] / τ, [B, M] (He et al. 2020, MoCo eq. 1)."""
    own_B1 = (q_BP * k_BP).sum(1, keepdim=True)
    queued_BK = q_BP @ queue_KP.clone().T  # enqueueing must not touch the graph
    return torch.cat([own_B1, queued_BK], dim=1) / temperature


def own_key_alone(rows: int, candidates: int, device: torch.device) -> Tensor:
    """Returns the mask whose only positive is the clip's own key, bool [rows, candidates]."""
    positive_BM = torch.zeros(rows, candidates, dtype=torch.bool, device=device)
    positive_BM[:, 0] = True
    return positive_BM


def mil_nce(score_BM: Tensor, positive_BM: Tensor) -> Tensor:
    """Computes −log( Σ_{p∈P} exp s_p / Σ_j exp s_j ), mean over the batch.

    Source: Han et al. 2020, eq. 2.
    """
    numerator = score_BM.masked_fill(~positive_BM, float("-inf")).logsumexp(1)
    return (score_BM.logsumexp(1) - numerator).mean()


def supcon_out(score_BM: Tensor, positive_BM: Tensor) -> Tensor:
    """Computes −1/|P| Σ_{p∈P} log( exp s_p / Σ_j exp s_j ), mean over the batch.

    The "out" form of Khosla et al. 2020, SupCon eq. 2.
    """
    log_share_BM = score_BM - score_BM.logsumexp(1, keepdim=True)
    return -(log_share_BM.masked_fill(~positive_BM, 0.0).sum(1) / positive_BM.sum(1)).mean()
