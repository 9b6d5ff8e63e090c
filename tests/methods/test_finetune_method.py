"""The classifier above an encoder: both published heads beside slow twins, and its training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from methods import BLOCKS, batch, encoder
from stubs import FixedBatches

from vidssl.base.errors import UsageError, VidsslError
from vidssl.engine.learning_rate import set_learning_rate
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Classifier, Finetune, FinetuneConfig, StepState

CLOCK = StepState(seed=3, epoch=0, step=1)


def clips(method: Finetune, step: int = 0) -> torch.Tensor:
    return batch(step, method)[0].clips["rgb"]


def dense(**config) -> Finetune:
    settings = {"classes": 3, "dropout": 0.5} | config
    return Finetune(FinetuneConfig(**settings), encoder("rgb", blocks=BLOCKS))


def test_pooled_head_is_its_slow_twin() -> None:
    method = Finetune(FinetuneConfig(classes=3), encoder("rgb")).eval()
    x = clips(method)
    pooled = torch.stack([method.classifier.encoder.pool(clip) for clip in x]).mean(1)
    weight, bias = method.extra_state["fc.weight"], method.extra_state["fc.bias"]
    scores = torch.stack([
        torch.stack([(row * w).sum() + b for w, b in zip(weight, bias, strict=True)])
        for row in pooled
    ])  # fmt: skip
    torch.testing.assert_close(method.classifier(x), scores, atol=1e-6, rtol=1e-4)
    shares = method.classifier.embed(x)
    torch.testing.assert_close(shares, scores.exp() / scores.exp().sum(1, keepdim=True))
    assert set(method.extra_state) == {"fc.weight", "fc.bias"}
    assert weight.std().item() == pytest.approx(0.01, rel=0.2) and not bias.any()


@pytest.mark.parametrize("relu", [False, True])
def test_dense_head_is_its_slow_twin(relu: bool) -> None:
    method = dense(relu=relu).eval()
    classifier = method.classifier
    x = clips(method)
    z = classifier.encoder.block_maps(x)
    z = z.clamp(min=0) if relu else z
    gru, h = classifier.encoder.context.gru, torch.zeros_like(z[:, 0])
    for n in range(BLOCKS):
        u = torch.sigmoid(gru.update(torch.cat([z[:, n], h], 1)))
        r = torch.sigmoid(gru.reset(torch.cat([z[:, n], h], 1)))
        h = (1 - u) * h + u * torch.tanh(gru.out(torch.cat([z[:, n], r * h], 1)))
    norm = classifier.norm
    state = (h.mean((2, 3)) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    scores = (state * norm.weight + norm.bias) @ classifier.fc.weight.T + classifier.fc.bias
    torch.testing.assert_close(classifier(x), scores, atol=1e-5, rtol=1e-4)
    rows = classifier.fc.weight
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    assert "norm.running_mean" in method.extra_state


def test_loss_by_hand_where_the_head_says_nothing() -> None:
    method = Finetune(FinetuneConfig(classes=3, dropout=0.0), encoder("rgb")).train()
    torch.nn.init.zeros_(method.classifier.fc.weight)
    (data,) = batch(0, method)
    output = method(data, CLOCK)
    assert output.loss.item() == pytest.approx(1.0986123)  # log 3
    assert output.metrics["top1"] == (data.label == 0).float().mean()


def test_dropout_scales_what_it_keeps() -> None:
    method = Finetune(FinetuneConfig(classes=3, dropout=0.9), encoder("rgb")).train()
    ones = torch.ones(64, method.classifier.fc.in_features)
    seen = []
    method.classifier.summary = lambda x, drop: ones  # type: ignore[method-assign]
    method.classifier.fc.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    (data,) = batch(0, method, size=64)
    method(data, CLOCK)
    (dropped,) = seen
    assert dropped.unique().tolist() == pytest.approx([0.0, 10.0])
    share = (dropped == 0).float().mean().item()
    assert abs(share - 0.9) < 4 * (0.09 / dropped.numel()) ** 0.5
    method.eval()(data, CLOCK)
    assert seen[1].equal(ones)


def test_the_projection_head_goes_and_the_predictor_stays_as_it_is() -> None:
    given = encoder("rgb")
    method = Finetune(FinetuneConfig(classes=3), given)
    assert given.head is None and given.spec.project is None
    assert method.encoders == {"rgb": given}
    looking_ahead = dense()
    frozen = {n for n, p in looking_ahead.named_parameters() if not p.requires_grad}
    assert frozen and all(".context.predict." in name for name in frozen)


def test_a_frozen_context_does_not_learn() -> None:
    method = dense(freeze_context=True).train()
    before = copy.deepcopy(method.state_dict())
    optimizer = make_optimizer(TrainSpec(lr=0.1), method.parameter_groups())
    method(batch(0, method)[0], CLOCK).loss.backward()
    optimizer.step()
    moved = {n for n, p in method.named_parameters() if not p.equal(before[n])}
    assert moved and not any(".context." in name for name in moved)
    assert any(".backbone." in name for name in moved)


def test_the_encoder_has_its_share_of_the_rate() -> None:
    """One step of plain SGD: w − rate·share·gradient, by hand."""
    config = FinetuneConfig(classes=3, dropout=0.0, backbone_rate=0.25)
    method = Finetune(config, encoder("rgb")).train()
    spec = TrainSpec(optimizer="sgd", lr=0.2, weight_decay=0.0, sgd_momentum=0.0)
    optimizer = make_optimizer(spec, method.parameter_groups())
    set_learning_rate(optimizer, 0.4)
    method(batch(0, method)[0], CLOCK).loss.backward()
    expected = {
        name: p.detach() - 0.4 * (0.25 if ".encoder." in name else 1.0) * p.grad
        for name, p in method.named_parameters()
    }
    optimizer.step()
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(set(map(id, trained))) == len(list(method.parameters()))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "larc"])
def test_shares_hold_for_every_optimiser_and_survive_a_resume(optimizer: str) -> None:
    method = Finetune(FinetuneConfig(classes=3), encoder("rgb"))
    spec = TrainSpec(optimizer=optimizer, lr=0.5)
    made = make_optimizer(spec, method.parameter_groups())
    again = make_optimizer(spec, method.parameter_groups())
    again.load_state_dict(made.state_dict())
    set_learning_rate(again, 1.0)
    assert [group["lr"] for group in again.param_groups] == [1.0, 0.1]
    for group in again.param_groups:  # of a run that was begun before there were shares
        del group["share"]
    set_learning_rate(again, 1.0)
    assert [group["lr"] for group in again.param_groups] == [1.0, 1.0]


def test_a_dense_classifier_goes_on_exactly(tmp_path: Path) -> None:
    """Also the context's dropout repeats itself; the contract suite has the other head."""
    ends = []
    for folder, stops in ((tmp_path / "whole", [3]), (tmp_path / "parts", [1, 2, 3])):
        folder.mkdir()
        for epochs in stops:
            method = dense()
            batches = FixedBatches(2, lambda step, made=method: batch(step, made))
            spec = TrainSpec(epochs=epochs, batch_size=4, schedule="constant")
            fit(method, batches, spec, RuntimeConfig(torch.device("cpu")), folder)
        ends.append(method.state_dict())
    assert all(value.equal(ends[1][name]) for name, value in ends[0].items())


def test_planted_classes_are_learnt() -> None:
    """Clips whose brightness is their class, with the published head at its full dropout."""
    method = Finetune(FinetuneConfig(classes=3, backbone_rate=1.0), encoder("rgb")).train()
    optimizer = make_optimizer(TrainSpec(lr=3e-3, weight_decay=0.0), method.parameter_groups())
    for step in range(60):
        (data,) = batch(step, method, size=12)
        data.clips["rgb"] += 2.0 * data.label.view(-1, 1, 1, 1, 1, 1)
        optimizer.zero_grad()
        method(data, StepState(0, 0, step)).loss.backward()
        optimizer.step()
    (data,) = batch(99, method, size=30)
    data.clips["rgb"] += 2.0 * data.label.view(-1, 1, 1, 1, 1, 1)
    right = method.eval().classifier.embed(data.clips["rgb"]).argmax(1) == data.label
    assert right.float().mean() > 0.9


def test_a_head_is_taken_up_whole_or_not_at_all() -> None:
    config = FinetuneConfig(classes=3)
    first, second = (Classifier(encoder("rgb"), config) for _ in range(2))
    second.load_head(first.head())
    assert F.mse_loss(first.fc.weight, second.fc.weight) == 0
    other = Classifier(encoder("rgb"), FinetuneConfig(classes=4))
    with pytest.raises(VidsslError, match="no classifier of 4 classes"):
        other.load_head(first.head())
    with pytest.raises(VidsslError, match="there are none"):
        other.load_head({})


@pytest.mark.parametrize(
    "wrong", [{"dropout": 1.0}, {"classes": 1}, {"backbone_rate": -1.0}, {"state_dropout": -0.1}]
)
def test_impossible_settings_are_usage_errors(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        FinetuneConfig(**wrong)
