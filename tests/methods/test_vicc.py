"""ViCC: its loss beside a slow twin and by hand, whose gradient flows where, what is remembered."""

import math
from itertools import pairwise

import pytest
import torch
from methods import BUILDERS, batch, encoder
from stubs import StubEncoder

from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import train_step
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import StepState, ViCC, ViCCConfig, ViCCCross, ViCCCrossConfig
from vidssl.methods.modules.feature_bank import RecentFeatures
from vidssl.methods.vicc import swapped_prediction


def step_state(step: int, steps_per_epoch: int = 10) -> StepState:
    return StepState(0, step // steps_per_epoch, step, steps_per_epoch)


def linear(view: str, seed: int = 0) -> StubEncoder:
    return StubEncoder(view, torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)))


def clips(step: int = 0, rows: int = 4) -> ClipBatch:
    draw = torch.Generator().manual_seed(step)
    numbers = torch.arange(rows)
    views = {v: torch.randn(rows, 2, 1, 1, 1, 5, generator=draw) for v in ("rgb", "flow")}
    return ClipBatch(views, numbers, numbers % 2, numbers)


def single(**fields) -> ViCC:
    return ViCC(ViCCConfig(**(dict(prototypes=7, queue=0) | fields)), linear("rgb")).train()


def cross(**fields) -> ViCCCross:
    config = ViCCCrossConfig(**(dict(prototypes=7, queue=0) | fields))
    return ViCCCross(config, linear("rgb"), linear("flow", seed=1)).train()


# ── the loss ─────────────────────────────────────────────────────────────────────────────────


def slow_swapped_prediction(code_VBC, log_p_VBC):
    views, rows, prototypes = code_VBC.shape
    total = 0.0
    for i in range(views):
        for j in range(views):
            if i != j:
                for b in range(rows):
                    for c in range(prototypes):
                        total -= code_VBC[i, b, c].item() * log_p_VBC[j, b, c].item() / rows
    return total / (views * (views - 1))


@pytest.mark.parametrize("views", [2, 4])
def test_the_loss_equals_its_slow_twin(views):
    draw = torch.Generator().manual_seed(views)
    code_VBC = torch.rand(views, 3, 5, generator=draw).softmax(2)
    log_p_VBC = torch.randn(views, 3, 5, generator=draw).log_softmax(2)
    wanted = slow_swapped_prediction(code_VBC, log_p_VBC)
    assert swapped_prediction(code_VBC, log_p_VBC).item() == pytest.approx(wanted, rel=1e-5)


def test_by_hand():
    code_VBC = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    p_VBC = torch.tensor([[[0.8, 0.2]], [[0.25, 0.75]]])
    wanted = (-math.log(0.25) - 0.5 * math.log(0.8) - 0.5 * math.log(0.2)) / 2
    assert swapped_prediction(code_VBC, p_VBC.log()).item() == pytest.approx(wanted)


def test_the_order_of_views_does_not_matter():
    draw = torch.Generator().manual_seed(0)
    code_VBC = torch.rand(4, 3, 5, generator=draw).softmax(2)
    log_p_VBC = torch.randn(4, 3, 5, generator=draw).log_softmax(2)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        swapped_prediction(code_VBC[order], log_p_VBC[order]),
        swapped_prediction(code_VBC, log_p_VBC),
    )


def test_the_whole_of_it_by_its_parts():
    """Forward is: scores, Sinkhorn per view, softmax with τ, swapped prediction."""
    from test_sinkhorn import slow_sinkhorn

    method, batch = cross(), clips()
    method.before_forward(step_state(0))
    f, g, weight_CP = method.encoder, method.partner, method.prototypes.weight
    x1, x2 = batch.clips["rgb"].unbind(1)
    y1, y2 = batch.clips["flow"].unbind(1)
    scores = [z @ weight_CP.T for z in (f.project(x1), f.project(x2), g.project(y2), g.project(y1))]
    codes = torch.stack([slow_sinkhorn(s.detach(), 0.05, 3) for s in scores])
    wanted = slow_swapped_prediction(codes, torch.stack([(s / 0.1).log_softmax(1) for s in scores]))
    assert method(batch, step_state(0)).loss.item() == pytest.approx(wanted, rel=1e-4)


# ── gradients ────────────────────────────────────────────────────────────────────────────────


def gradients(method) -> tuple[torch.Tensor, torch.Tensor]:
    method.zero_grad(set_to_none=True)
    method.before_forward(step_state(0))
    method(clips(), step_state(0)).loss.backward()
    return method.encoder.weight.grad, method.prototypes.weight.grad


@pytest.mark.parametrize("make", [single, cross])
def test_the_published_gradient_comes_from_the_first_clip_alone(make):
    published = make(published_gradient=True)
    encoder_grad, prototype_grad = gradients(published)
    both, prototype_of_both = gradients(make())
    # The loss is the same, and so is the prototypes' gradient: all views give it.
    torch.testing.assert_close(prototype_grad, prototype_of_both)
    assert not torch.allclose(encoder_grad, both)
    # Only p_0 depends on f: the rest of the loss is constant in the encoder's weights.
    published.zero_grad()
    views = published.embeddings(clips(), step_state(0))
    assert [z.requires_grad for z in views] == [True] + [False] * (len(views) - 1)


def test_frozen_prototypes_have_a_gradient_and_stay():
    method = single(freeze_prototypes_epochs=0.5)  # of 10 steps each
    optimizer = make_optimizer(TrainSpec(optimizer="larc", lr=1.0), method.parameters())
    ends = []
    for step in range(7):
        method.before_forward(step_state(step))
        ends.append(method.prototypes.weight.detach().clone())
        train_step(method, method, optimizer, [clips(step)], step_state(step))
    still = [torch.allclose(a, b, atol=1e-6) for a, b in pairwise(ends)]
    assert still == [True] * 5 + [False]


def test_prototypes_have_unit_rows_before_every_forward():
    method = single()
    with torch.no_grad():
        method.prototypes.weight.mul_(3)
    method.before_forward(step_state(0))
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(7))


def test_the_partner_is_frozen_and_in_eval_mode():
    method = BUILDERS["vicc-cross"]().train()
    assert not method.partner.training and method.encoder.training
    assert not any(p.requires_grad for p in method.partner.parameters())
    assert list(method.encoders) == ["rgb"]
    assert method.batch_spec.views == ("rgb", "flow")


# ── what is remembered ───────────────────────────────────────────────────────────────────────


def test_recent_features_are_newest_first_and_full_once_the_last_row_is_written():
    recent = RecentFeatures(kinds=2, length=5, width=3)
    first, second = torch.full((2, 2, 3), 1.0), torch.full((2, 3, 3), 2.0)
    recent.push(first)
    assert not recent.is_full()
    recent.push(second)
    assert recent.is_full()
    assert recent.rows[0, :, 0].tolist() == [2, 2, 2, 1, 1]
    recent.push(torch.full((2, 7, 3), 3.0))  # more than there is room for
    assert recent.rows.unique().tolist() == [3]
    assert not RecentFeatures(2, 0, 3).is_full()


def test_the_queue_begins_at_its_epoch_and_joins_when_full():
    method = single(queue=8, queue_from_epoch=0.3)
    optimizer = make_optimizer(TrainSpec(optimizer="sgd", lr=0.0), method.parameters())
    filled = []
    for step in range(7):
        train_step(method, method, optimizer, [clips(step)], step_state(step))
        filled.append(int(method.recent.rows[0].any(1).sum()))
    assert filled == [0, 0, 0, 4, 8, 8, 8]  # from step 3 of 10 on, 4 clips a step
    codes = method.codes(method.prototypes(torch.ones(2, 4, 6)))
    assert codes.shape == (2, 4, 7)


def test_codes_change_with_what_is_remembered():
    plain, queued = single(), single(queue=4, queue_from_epoch=0.0)
    queued.load_state_dict(plain.state_dict() | {"recent.rows": queued.recent.rows})
    assert plain(clips(), step_state(0)).loss.equal(output := queued(clips(), step_state(0)).loss)
    queued.after_step(step_state(0), [queued(clips(1), step_state(0))])
    assert not queued(clips(), step_state(1)).loss.equal(output)


# ── from run to run ──────────────────────────────────────────────────────────────────────────


def test_prototypes_are_handed_on():
    first, second = single(), cross()
    assert not first.prototypes.weight.equal(torch.zeros_like(first.prototypes.weight))
    with torch.no_grad():
        first.prototypes.weight.mul_(2)
    second.load_extra_state(first.extra_state)
    assert second.prototypes.weight.equal(first.prototypes.weight)
    second.load_extra_state({})  # of a method without prototypes: its own stay
    assert second.prototypes.weight.equal(first.prototypes.weight)


def test_other_prototypes_are_refused():
    with pytest.raises(UsageError, match="--set prototypes=7"):
        single(prototypes=8).load_extra_state(single().extra_state)


def test_prototypes_begin_alike_by_seed():
    weights = [ViCC(ViCCConfig(), encoder("rgb"), seed).prototypes.weight for seed in (0, 0, 1)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


# ── limits ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fields",
    [
        {"prototypes": 1},
        {"temperature": 0.01},
        {"epsilon": 0.001},
        {"sinkhorn_iterations": 0},
        {"queue": -1},
    ],
)
def test_impossible_hyperparameters_are_refused(fields):
    (name,) = fields
    with pytest.raises(UsageError, match=name):
        ViCCConfig(**fields)


def test_streams_of_different_width_are_refused():
    narrow = StubEncoder("flow", torch.ones(3, 5))
    with pytest.raises(UsageError, match="equally wide, not 6 and 3"):
        ViCCCross(ViCCCrossConfig(), linear("rgb"), narrow)


def test_usage_is_one_for_spread_prototypes_and_nothing_for_one():
    method = BUILDERS["vicc"]().train()
    (some,) = batch(0, method)
    code_VBC = torch.full((2, 4, 6), 1 / 6)
    even = method.metrics(some, torch.zeros(2, 4, 16), code_VBC, code_VBC.log())
    assert even["prototype_entropy"].item() == pytest.approx(1.0)
    alone = torch.full((2, 4, 6), -1e4)
    alone[:, :, 2] = 0.0
    one = method.metrics(some, torch.zeros(2, 4, 16), code_VBC, alone)
    assert one["prototype_entropy"].item() == pytest.approx(0.0)
