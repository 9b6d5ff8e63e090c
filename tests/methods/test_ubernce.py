"""UberNCE's loss beside slow twins, by hand, and at its limits."""

import math

import pytest
import torch
from methods import BUILDERS, batch
from stubs import StubEncoder

from vidssl.clips.batch import ClipBatch
from vidssl.methods import StepState, UberNCE, UberNCEConfig
from vidssl.methods.modules.nce_loss import mil_nce, own_key_alone, supcon_out

CLOCK = StepState(seed=0, epoch=0, step=0)


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    score_BM = torch.randn(5, 9, generator=draw) * 4
    positive_BM = torch.rand(5, 9, generator=draw) < 0.4
    positive_BM[:, 0] = True
    return score_BM, positive_BM


def chosen(scores, positives):
    return [s for s, positive in zip(scores, positives, strict=True) if positive]


def slow_mean_of_logs(score_BM, positive_BM):
    total = 0.0
    for scores, positives in zip(score_BM.tolist(), positive_BM.tolist(), strict=True):
        everything = sum(math.exp(s) for s in scores)
        logs = [math.log(math.exp(s) / everything) for s in chosen(scores, positives)]
        total -= sum(logs) / len(logs)
    return total / len(score_BM)


def slow_log_of_share(score_BM, positive_BM):
    total = 0.0
    for scores, positives in zip(score_BM.tolist(), positive_BM.tolist(), strict=True):
        everything = sum(math.exp(s) for s in scores)
        total -= math.log(sum(math.exp(s) for s in chosen(scores, positives)) / everything)
    return total / len(score_BM)


@pytest.mark.parametrize("seed", range(3))
def test_both_losses_equal_their_slow_twins(seed):
    score_BM, positive_BM = case(seed)
    wanted = slow_mean_of_logs(score_BM, positive_BM)
    assert supcon_out(score_BM, positive_BM).item() == pytest.approx(wanted, rel=1e-5)
    wanted = slow_log_of_share(score_BM, positive_BM)
    assert mil_nce(score_BM, positive_BM).item() == pytest.approx(wanted, rel=1e-5)


def test_by_hand():
    score_BM = torch.tensor([[math.log(2.0), math.log(1.0), math.log(1.0)]])  # shares 1/2, 1/4, 1/4
    positive_BM = torch.tensor([[True, True, False]])
    outside = -(math.log(1 / 2) + math.log(1 / 4)) / 2
    assert supcon_out(score_BM, positive_BM).item() == pytest.approx(outside)
    assert mil_nce(score_BM, positive_BM).item() == pytest.approx(-math.log(3 / 4))


def test_with_one_positive_both_are_cross_entropy():
    score_BM, _ = case()
    alone = own_key_alone(*score_BM.shape, device=score_BM.device)
    target_B = torch.zeros(len(score_BM), dtype=torch.long)
    wanted = torch.nn.functional.cross_entropy(score_BM, target_B)
    torch.testing.assert_close(supcon_out(score_BM, alone), wanted)
    torch.testing.assert_close(mil_nce(score_BM, alone), wanted)


def test_a_constant_added_to_all_scores_changes_nothing_and_large_scores_stay_finite():
    score_BM, positive_BM = case()
    for loss in (supcon_out, mil_nce):
        shifted = loss(score_BM + 50, positive_BM)
        torch.testing.assert_close(shifted, loss(score_BM, positive_BM), atol=1e-4, rtol=1e-5)
        assert torch.isfinite(loss(1e4 * score_BM, positive_BM))


def small(**fields) -> UberNCE:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    return UberNCE(UberNCEConfig(queue=6, **fields), StubEncoder("rgb", weight)).train()


def labelled(labels: list[int]) -> ClipBatch:
    count = len(labels)
    clips = torch.randn(count, 2, 1, 1, 1, 6, generator=torch.Generator().manual_seed(2))
    numbers = torch.arange(count)
    return ClipBatch({"rgb": clips}, numbers, torch.tensor(labels), numbers)


def test_positives_are_the_own_key_and_queued_keys_of_the_label():
    method = small()
    first = method(labelled([3, 5]), CLOCK)
    method.after_step(CLOCK, [first])
    rows = method.rows(labelled([5, 3, 4]), torch.zeros(3, 4))
    positive_BM = method.positives(rows, CLOCK)
    own, queued, unwritten = positive_BM[:, 0], positive_BM[:, 1:3], positive_BM[:, 3:]
    assert own.all()
    assert queued.tolist() == [[False, True], [True, False], [False, False]]
    assert not unwritten.any()


def test_clips_without_a_label_are_not_of_one_class():
    method = small()
    method.after_step(CLOCK, [method(labelled([-1, -1]), CLOCK)])
    positive_BM = method.positives(method.rows(labelled([-1]), torch.zeros(1, 4)), CLOCK)
    assert positive_BM.sum() == 1


def test_the_option_chooses_the_papers_loss():
    score_BM, positive_BM = case()
    assert small().loss(score_BM, positive_BM).equal(supcon_out(score_BM, positive_BM))
    papers = small(log_of_sum=True).loss(score_BM, positive_BM)
    assert papers.equal(mil_nce(score_BM, positive_BM))
    assert papers < supcon_out(score_BM, positive_BM)  # Jensen: the log of a mean is the larger


def test_it_says_how_many_positives_there_are():
    method = BUILDERS["ubernce"]().train()
    for step in range(3):
        method.after_step(CLOCK, [output := method(batch(step, method)[0], CLOCK)])
    assert output.metrics["positives"] > 1
    assert method.supervised
