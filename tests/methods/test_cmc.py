"""CMC: its loss beside a slow twin and by hand; both streams are trained."""

import math

import pytest
import torch
from methods import BUILDERS, batch
from stubs import StubEncoder

from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.methods import CMC, CMCConfig, StepState

CLOCK = StepState(seed=0, epoch=0, step=0)


def small(**fields) -> CMC:
    weights = [torch.randn(4, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    encoders = {v: StubEncoder(v, w) for v, w in zip(("rgb", "flow"), weights, strict=True)}
    return CMC(CMCConfig(**(dict(queue=5, momentum=0.9) | fields)), encoders).train()


def clips() -> ClipBatch:
    draw = torch.Generator().manual_seed(3)
    numbers = torch.arange(3)
    views = {v: torch.randn(3, 2, 1, 1, 1, 6, generator=draw) for v in ("rgb", "flow")}
    return ClipBatch(views, numbers, numbers, numbers)


def slow_loss(method: CMC, batch: ClipBatch, moment: int) -> float:
    total = 0.0
    for v, w in (("rgb", "flow"), ("flow", "rgb")):
        q_BP = method.query[v].project(batch.clips[v][:, 0]).tolist()
        k_BP = method.key[w].project(batch.clips[w][:, moment]).tolist()
        queue_KP = getattr(method.queue, w).tolist()
        for q, k in zip(q_BP, k_BP, strict=True):
            scores = [
                math.exp(sum(a * b for a, b in zip(q, other, strict=True)) / 0.07)
                for other in (k, *queue_KP)
            ]
            total -= math.log(scores[0] / sum(scores)) / len(q_BP)
    return total


@pytest.mark.parametrize(("same", "moment"), [(True, 0), (False, 1)])
def test_the_loss_equals_its_slow_twin(same, moment):
    method = small(same_moment=same)
    wanted = slow_loss(method, clips(), moment)
    assert method(clips(), CLOCK).loss.item() == pytest.approx(wanted, rel=1e-5)
    assert method.batch_spec.clips == moment + 1


def test_by_hand():
    """All vectors alike: each direction is the log of the number of candidates."""
    method = small()
    with torch.no_grad():
        for module in (*method.query.values(), *method.key.values()):
            module.weight.zero_()[0] = 1.0
        for view in ("rgb", "flow"):
            getattr(method.queue, view).zero_()[:, 0] = 1.0
    one = ClipBatch(
        {v: torch.ones(1, 2, 1, 1, 1, 6) for v in ("rgb", "flow")}, *(torch.zeros(1),) * 3
    )
    assert method(one, CLOCK).loss.item() == pytest.approx(2 * math.log(6))


def test_the_two_streams_are_interchangeable():
    method, batch = small(), clips()
    loss = method(batch, CLOCK).loss
    mirrored = small()
    for module in ("query", "key"):
        ours, theirs = getattr(mirrored, module), getattr(method, module)
        ours["rgb"].load_state_dict(theirs["flow"].state_dict())
        ours["flow"].load_state_dict(theirs["rgb"].state_dict())
    mirrored.queue.rgb.copy_(method.queue.flow)
    mirrored.queue.flow.copy_(method.queue.rgb)
    turned = {"rgb": batch.clips["flow"], "flow": batch.clips["rgb"]}
    swapped = ClipBatch(turned, batch.source, batch.label, batch.index)
    torch.testing.assert_close(mirrored(swapped, CLOCK).loss, loss)


def test_both_streams_are_trained_and_kept():
    method = BUILDERS["cmc"]().train()
    method.before_forward(CLOCK)
    method(batch(0, method)[0], CLOCK).loss.backward()
    for view in ("rgb", "flow"):
        assert all(p.grad is not None for p in method.query[view].parameters())
        assert not any(p.requires_grad for p in method.key[view].parameters())
    assert list(method.encoders) == ["rgb", "flow"] == list(method.batch_spec.views)
    assert method.joint


def test_one_stream_or_different_widths_are_refused():
    rgb = StubEncoder("rgb", torch.ones(4, 6))
    for other in ({}, {"flow": StubEncoder("flow", torch.ones(3, 6))}):
        with pytest.raises(UsageError, match="two streams"):
            CMC(CMCConfig(queue=5), {"rgb": rgb} | other)
