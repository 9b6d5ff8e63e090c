"""Contrast within the batch: losses against slow twins, and who is whose positive."""

from __future__ import annotations

import math

import pytest
import torch
from methods import BUILDERS, batch

from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.methods import CoCLRConfig, InfoNCEConfig, Method, StepState

STEP = StepState(seed=3, epoch=0, step=1)


def of_step(method: Method, step: int = 1, size: int = 6) -> ClipBatch:
    return batch(step, method, size)[0]


def slow_loss(
    z: list[list[float]], positives: list[set[int]], tau: float, log_of_sum: bool
) -> float:
    """Returns the mean over rows of minus the mean of the logs of the positives' shares among all
    rows but itself, or minus the log of the sum of these.
    """
    total = 0.0
    for i, row in enumerate(z):
        score = {
            j: sum(a * b for a, b in zip(row, other, strict=True)) / tau
            for j, other in enumerate(z)
            if j != i
        }
        everything = sum(math.exp(s) for s in score.values())
        shares = [math.exp(score[p]) / everything for p in positives[i]]
        if log_of_sum:
            total -= math.log(sum(shares))
        else:
            total -= sum(map(math.log, shares)) / len(shares)
    return total / len(z)


def embeddings(method: Method, given: ClipBatch) -> torch.Tensor:
    x1, x2 = given.clips["rgb"].unbind(1)
    return method.query.project(torch.cat([x1, x2])).detach().double()


def positives_of(numbers: list[int], related) -> list[set[int]]:
    """Returns the rows other than itself that are related to each row."""
    rows = range(len(numbers))
    return [{j for j in rows if j != i and related(numbers[i], numbers[j])} for i in rows]


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("name", ["infonce-batch", "ubernce-batch", "coclr-batch"])
def test_the_loss_equals_its_slow_twin(name: str, step: int):
    method = BUILDERS[name]().eval()
    given = of_step(method, step)
    videos, labels = (column.repeat(2).tolist() for column in (given.index, given.label))
    dropped = name == "coclr-batch" and method.drops_self(STEP)
    if name == "infonce-batch":
        wanted = positives_of(videos, lambda a, b: a == b)
    elif name == "ubernce-batch":
        wanted = positives_of(labels, lambda a, b: a == b)
    else:
        mined = positives_of(videos, lambda a, b: (b - a) % 12 in (1, 2))
        own = positives_of(videos, lambda a, b: a == b)
        wanted = [m if dropped and m else m | o for m, o in zip(mined, own, strict=True)]
    z = embeddings(method, given)
    together = name == "infonce-batch"
    expected = slow_loss(z.tolist(), wanted, method.config.temperature, together)
    assert method(given, STEP).loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("step", [1, 4])
def test_cmc_compares_each_view_with_the_other_of_the_batch(step: int):
    method = BUILDERS["cmc-batch"]().eval()
    given, tau = of_step(method, step), method.config.temperature
    z = {v: method.query[v].project(given.clips[v][:, 0]).detach().double() for v in method.views}
    total = 0.0
    for v, w in (("rgb", "flow"), ("flow", "rgb")):
        for i, row in enumerate(z[v]):
            score = [math.exp(float(row @ other) / tau) for other in z[w]]
            total -= math.log(score[i] / sum(score)) / len(z[v])
    assert method(given, STEP).loss.item() == pytest.approx(total, rel=1e-4)


def test_both_clips_have_a_gradient_and_no_momentum_encoder_is_kept():
    method = BUILDERS["infonce-batch"]().train()
    assert method.key is None
    given = of_step(method)
    x = given.clips["rgb"].requires_grad_()
    method(given, STEP).loss.backward()
    assert (x.grad.flatten(2).abs().sum(2) > 0).all()


def test_videos_without_a_label_are_nobodys_positives():
    method = BUILDERS["ubernce-batch"]().eval()
    given = of_step(method)
    order = torch.arange(len(given.index))
    unlabelled = ClipBatch(given.clips, order, torch.full_like(order, -1), order)
    alone = BUILDERS["infonce-batch"]().eval()(unlabelled, STEP).loss.item()
    assert method(unlabelled, STEP).loss.item() == pytest.approx(alone)


def test_mined_positives_need_the_whole_set():
    with pytest.raises(UsageError, match="mining=set"):
        CoCLRConfig(negatives="batch")
    with pytest.raises(UsageError, match="mining=set"):
        CoCLRConfig(mutual=True)
    with pytest.raises(UsageError, match="queue or batch"):
        InfoNCEConfig(negatives="none")


def test_added_fields_leave_the_identity_of_older_runs_alone():
    from vidssl.base.typed_settings import identity_of

    assert set(identity_of(CoCLRConfig())) == {
        "queue", "momentum", "temperature", "k", "drop_self_prob", "wait_for_full_queue",
    }  # fmt: skip
    assert identity_of(InfoNCEConfig(negatives="batch"))["negatives"] == "batch"
