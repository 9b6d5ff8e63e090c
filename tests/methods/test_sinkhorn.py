"""Sinkhorn-Knopp beside its slow twin: what rows and columns sum to, and its limits."""

import math

import pytest
import torch

from vidssl.methods.modules.sinkhorn import sinkhorn


def cosines(clips: int, prototypes: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(clips, prototypes, generator=draw) * 2 - 1


def slow_sinkhorn(score_BC, epsilon, iterations):
    """As the papers write it: a list of lists, one number at a time."""
    q = [[math.exp(s / epsilon) for s in row] for row in score_BC.tolist()]
    clips, prototypes = len(q), len(q[0])
    total = sum(map(sum, q))
    q = [[v / total for v in row] for row in q]
    for _ in range(iterations):
        for c in range(prototypes):
            mass = sum(row[c] for row in q)
            for row in q:
                row[c] /= mass * prototypes
        for row in q:
            mass = sum(row)
            row[:] = [v / (mass * clips) for v in row]
    return torch.tensor([[v / sum(row) for v in row] for row in q])


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("shape", [(8, 5), (3, 20)])
def test_it_equals_its_slow_twin(iterations, shape):
    score_BC = cosines(*shape)
    wanted = slow_sinkhorn(score_BC, 0.05, iterations)
    torch.testing.assert_close(sinkhorn(score_BC, 0.05, iterations), wanted)


def test_by_hand():
    # Two clips and two prototypes with exp(S/ε) = [[3, 1], [1, 1]]. Columns → 1/2:
    # [[3/8, 1/4], [1/8, 1/4]]; rows → 1: [[3/5, 2/5], [1/3, 2/3]].
    score_BC = 0.05 * torch.log(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    wanted = torch.tensor([[3 / 5, 2 / 5], [1 / 3, 2 / 3]])
    torch.testing.assert_close(sinkhorn(score_BC, 0.05, 1), wanted)


def test_every_clip_has_a_mass_of_one_and_every_prototype_nearly_its_share():
    score_BC = cosines(40, 10)
    code_BC = sinkhorn(score_BC, 0.05, 3)
    torch.testing.assert_close(code_BC.sum(1), torch.ones(40))
    assert (sinkhorn(score_BC, 0.5, 50).sum(0) - 4).abs().max() < 1e-4
    before = (score_BC / 0.05).softmax(1).sum(0)
    assert (code_BC.sum(0) - 4).abs().max() < (before - 4).abs().max() / 2


def test_a_constant_added_to_all_scores_changes_nothing():
    score_BC = cosines(6, 4)
    torch.testing.assert_close(sinkhorn(score_BC + 7, 0.05, 3), sinkhorn(score_BC, 0.05, 3))


def test_views_are_scaled_independently():
    score_VBC = torch.stack([cosines(6, 4, seed) for seed in range(3)])
    together = sinkhorn(score_VBC, 0.05, 3)
    for view, score_BC in enumerate(score_VBC):
        torch.testing.assert_close(together[view], sinkhorn(score_BC, 0.05, 3))


@pytest.mark.parametrize("epsilon", [0.003, 0.01, 0.05, 100.0])
def test_it_stays_finite_where_exp_would_overflow(epsilon):
    score_BC = cosines(8, 5)
    score_BC[:, 0] = -1.0  # far from every clip
    code_BC = sinkhorn(score_BC, epsilon, 3)
    assert torch.isfinite(code_BC).all()
    torch.testing.assert_close(code_BC.sum(1), torch.ones(8))


def test_it_gives_no_gradient():
    assert not sinkhorn(cosines(4, 3).requires_grad_(), 0.05, 3).requires_grad
