"""The published linear probe: a frozen encoder, and what stands above it, on fresh clips."""

from __future__ import annotations

import copy

import pytest
import torch
from methods import BLOCKS, batch, encoder

from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Linear, LinearConfig, StepState

CLOCK = StepState(seed=3, epoch=0, step=1)


def linear(blocks: int = 1, **config) -> Linear:
    return Linear(LinearConfig(classes=3, **config), encoder("rgb", blocks=blocks))


def test_the_head_is_its_slow_twin() -> None:
    """Unit length, then the batch's mean and deviation, then a sum by hand."""
    method = linear().train()
    (data,) = batch(0, method)
    twin = copy.deepcopy(method.classifier.encoder).eval()
    pooled = torch.stack([twin.pool(clip)[0] for clip in data.clips["rgb"]])
    unit = pooled / pooled.norm(dim=1, keepdim=True)
    normal = (unit - unit.mean(0)) / (unit.var(0, unbiased=False) + 1e-5).sqrt()
    fc = method.classifier.fc
    scores = torch.stack([
        torch.stack([(row * w).sum() + b for w, b in zip(fc.weight, fc.bias, strict=True)])
        for row in normal
    ])  # fmt: skip
    output = method(data, CLOCK)
    shares = scores.softmax(1)[torch.arange(len(scores)), data.label]
    torch.testing.assert_close(output.loss, -shares.log().mean(), atol=1e-5, rtol=1e-4)
    assert output.metrics["top1"] == (scores.argmax(1) == data.label).float().mean()
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.2) and not fc.bias.any()
    assert {"norm.running_mean", "norm.weight", "fc.weight"} <= set(method.extra_state)


@pytest.mark.parametrize("blocks", [1, BLOCKS])
def test_nothing_of_the_encoder_moves(blocks: int) -> None:
    """Neither weights nor BatchNorm statistics, though training sets all to train mode."""
    method = linear(blocks).train()
    before = copy.deepcopy(method.state_dict())
    optimizer = make_optimizer(TrainSpec(lr=0.1), method.parameter_groups())
    for step in range(3):
        method(batch(step, method)[0], CLOCK).loss.backward()
        optimizer.step()
    after = method.state_dict()
    moved = {name for name in after if not after[name].equal(before[name])}
    heads = {f"classifier.{name}" for name in method.extra_state}
    assert moved == heads


def test_a_collapsed_encoder_is_not_blamed_on_the_layer_above_it() -> None:
    method = linear().train()
    assert method(batch(0, method)[0], CLOCK).features is None


def test_blocks_are_classified_by_the_state_after_the_last() -> None:
    method = linear(BLOCKS, relu=True).eval()
    x = batch(0, method)[0].clips["rgb"]
    whole = method.classifier.encoder
    h = whole.context.look(whole.block_maps(x).clamp(min=0), lambda state: state)
    h = h.mean((2, 3)) / (1 + 1e-5) ** 0.5  # BatchNorm that has seen nothing
    torch.testing.assert_close(method.classifier(x), method.classifier.fc(h))
