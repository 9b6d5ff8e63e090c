"""Optimisers and schedules: LARC beside its slow, obvious twin."""

import copy

import pytest
import torch
from torch import nn

from vidssl.base.errors import UsageError
from vidssl.engine.larc import LARC
from vidssl.engine.learning_rate import learning_rate
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec


def slow_larc_step(parameters, buffers, lr, momentum, weight_decay, trust=1e-3):
    """The formula, tensor by tensor, number by number."""
    for p, buffer in zip(parameters, buffers, strict=True):
        g, w_norm, g_norm = p.grad.clone(), p.data.norm().item(), p.grad.norm().item()
        if w_norm != 0 and g_norm != 0:
            rate = trust * w_norm / (g_norm + weight_decay * w_norm + 1e-8)
            g = (g + weight_decay * p.data) * rate
        buffer.mul_(momentum).add_(g)
        p.data.sub_(lr * buffer)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.zeros_(model[2].bias)
    return model


def test_larc_equals_its_slow_twin():
    fast, slow = network(), network()
    optimizer = LARC(fast.parameters(), lr=0.6, momentum=0.9, weight_decay=0.1)
    buffers = [torch.zeros_like(p) for p in slow.parameters()]
    for step in range(5):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        for model in (fast, slow):
            model.zero_grad()
            model(x).square().sum().backward()
        optimizer.step()
        slow_larc_step(list(slow.parameters()), buffers, 0.6, 0.9, 0.1)
        for p, q in zip(fast.parameters(), slow.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-7, rtol=1e-5)


def test_larc_by_hand():
    w = nn.Parameter(torch.tensor([3.0, 4.0]))  # ‖w‖ = 5
    w.grad = torch.tensor([0.0, 2.0])  # ‖g‖ = 2
    LARC([w], lr=1.0, momentum=0.0, weight_decay=0.2).step()
    # (g + 0.2·w) · 0.001·5 / (2 + 0.2·5) = (0.6, 2.8) / 600
    torch.testing.assert_close(w.detach(), torch.tensor([3.0 - 0.001, 4.0 - 2.8 / 600]))


def test_larc_gives_a_zero_tensor_its_plain_gradient():
    w = nn.Parameter(torch.zeros(2))
    w.grad = torch.tensor([1.0, -2.0])
    LARC([w], lr=0.5, momentum=0.0, weight_decay=0.2).step()
    torch.testing.assert_close(w.detach(), torch.tensor([-0.5, 1.0]))


def test_larc_without_a_gradient_decays_nothing():
    w = nn.Parameter(torch.ones(2))
    w.grad = torch.zeros(2)
    LARC([w], lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(w.detach(), torch.ones(2))


def test_larc_leaves_parameters_that_lost_their_gradient():
    model = network()
    model[0].weight.grad = None
    model[2].weight.grad = torch.ones(3, 5)
    before = copy.deepcopy(model.state_dict())
    LARC(model.parameters(), lr=0.5).step()
    moved = {n for n, value in model.state_dict().items() if not value.equal(before[n])}
    assert moved == {"2.weight"}


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_length_of_a_gradient_does_not_matter_to_larc(factor):
    ends = []
    for times in (1.0, factor):
        w = nn.Parameter(torch.tensor([3.0, 4.0]))
        w.grad = times * torch.tensor([0.5, 2.0])
        LARC([w], lr=1.0).step()
        ends.append(w.detach())
    torch.testing.assert_close(*ends)


def test_larcs_state_goes_on_after_loading():
    def step(model, optimizer):
        model.zero_grad()
        model(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()

    spec = TrainSpec(optimizer="larc", lr=0.6, weight_decay=1e-2)
    whole = network()
    optimizer = make_optimizer(spec, whole.parameters())
    step(whole, optimizer)
    parts = copy.deepcopy(whole)
    loaded = make_optimizer(spec, parts.parameters())
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(whole, optimizer)
    step(parts, loaded)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert p.equal(q)


def test_cosine_goes_from_the_rate_to_the_final_rate():
    spec = TrainSpec(epochs=500, lr=0.6, schedule="cosine", final_lr=6e-4)
    assert learning_rate(spec, 0) == pytest.approx(0.6)
    assert learning_rate(spec, 250) == pytest.approx((0.6 + 6e-4) / 2)
    assert learning_rate(spec, 500) == pytest.approx(6e-4)


def test_an_unknown_optimiser_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean larc"):
        TrainSpec(optimizer="lars")
