"""The rules of vidssl/methods/method.py, over every method."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from methods import BUILDERS, batch
from stubs import FixedBatches
from watching import Watching

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.engine.loop import RuntimeConfig, fit, train_step
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import METHODS, StepState
from vidssl.methods import METHODS_BY_STAGE as METHODS_OF

CPU = torch.device("cpu")
SPEC = TrainSpec(epochs=2, batch_size=4, lr=1e-2, schedule="cosine", warmup_epochs=0.5)
every_method = pytest.mark.parametrize("method", BUILDERS)


def step_state(step: int) -> StepState:
    return StepState(seed=3, epoch=0, step=step)


def steps(method, first: int, last: int, optimizer=None):
    """Drives optimiser steps first … last-1; gives the losses."""
    optimizer = optimizer or make_optimizer(SPEC, method.parameters())
    losses = []
    for step in range(first, last):
        (output,) = train_step(method, method, optimizer, batch(step, method), step_state(step))
        losses.append(None if output.loss is None else output.loss.item())
    return losses


def test_every_method_is_in_the_suite():
    assert {name.removesuffix("-batch") for name in BUILDERS} == set(METHODS)


def test_every_method_is_trained_by_one_command():
    for name, method in METHODS.items():
        assert method.name == name
        assert sum(method in methods.values() for methods in METHODS_OF.values()) == 1


def test_a_config_is_frozen_and_has_the_papers_defaults():
    # SwAV's for ViCC; CoCon divides both factors by 0.07, which is one temperature of 0.0049.
    temperatures = {"vicc": 0.1, "vicc-cross": 0.1, "cpc": 0.0049, "cocon": 0.0049}
    for name, method in METHODS.items():
        config = method.Config()
        if name == "finetune":  # CoCLR's; there is nothing to contrast
            assert (config.dropout, config.backbone_rate) == (0.9, 0.1)
        elif name != "linear":
            assert config.temperature == pytest.approx(temperatures.get(name, 0.07))
        with pytest.raises(AttributeError):
            config.temperature = 1.0


@every_method
def test_forward_changes_nothing_but_batchnorm_statistics(method):
    built = BUILDERS[method]().train()
    steps(built, 0, 4)
    before = copy.deepcopy(built.state_dict())
    built(batch(9, built)[0], step_state(9))
    changed = {name for name, value in built.state_dict().items() if not value.equal(before[name])}
    assert changed, "BatchNorm statistics should have moved"
    assert all("running_" in n or "num_batches" in n for n in changed), changed


@every_method
def test_eval_mode_changes_nothing(method):
    built = BUILDERS[method]().train()
    steps(built, 0, 4)
    built.eval()
    before = copy.deepcopy(built.state_dict())
    built(batch(9, built)[0], step_state(9))
    assert all(value.equal(before[n]) for n, value in built.state_dict().items())


@every_method
def test_whenever_there_is_a_loss_every_trainable_parameter_gets_a_gradient(method):
    built = BUILDERS[method]().train()
    losses = 0
    for step in range(5):
        built.zero_grad(set_to_none=True)
        built.before_forward(step_state(step))
        output = built(batch(step, built)[0], step_state(step))
        if output.loss is not None:
            losses += 1
            output.loss.backward()
            lacking = [n for n, p in built.named_parameters() if p.requires_grad and p.grad is None]
            assert not lacking
        built.after_step(step_state(step), [output.detached()])
    assert losses > 0


@every_method
def test_state_dict_is_complete(method):
    first = BUILDERS[method]().train()
    steps(first, 0, 5)
    second = BUILDERS[method]().train()
    second.load_state_dict(first.state_dict())
    # Without optimiser state in play: what the methods themselves remember must agree.
    assert steps(first, 5, 8) == steps(second, 5, 8)


@every_method
def test_chance_comes_from_the_clock_alone(method):
    built = BUILDERS[method]().train()
    steps(built, 0, 4)
    losses = set()
    for seed in (0, 1):
        twin = copy.deepcopy(built)
        torch.manual_seed(seed)
        losses.add(twin(batch(5, twin)[0], step_state(5)).loss.item())
    assert len(losses) == 1


@every_method
def test_frozen_parts_stay_and_trained_parts_move(method):
    built = BUILDERS[method]().train()
    before = copy.deepcopy(dict(built.named_parameters()))
    steps(built, 0, 6)
    for name, parameter in built.named_parameters():
        moved = not parameter.equal(before[name])
        if name.startswith("partner."):
            assert not moved, name
        elif parameter.requires_grad:
            assert moved, name


@every_method
def test_following_the_gradient_lowers_the_loss(method):
    """With keys and queue held still, the loss is one that its own gradient can lower."""
    built = BUILDERS[method]().train()
    steps(built, 0, 4)
    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = built(batch(2, built)[0], step_state(4)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_diverged_run_is_one_sentence(tmp_path):
    method = BUILDERS["infonce"]()

    def broken(step):
        (made,) = batch(step, method)
        return [replace(made, clips={view: x * float("nan") for view, x in made.clips.items()})]

    with pytest.raises(VidsslError, match="diverged"):
        fit(method, FixedBatches(6, broken), SPEC, RuntimeConfig(CPU, log_every=2), tmp_path)


class StopAt(FixedBatches):
    """Asks the process to stop when a step's data is fetched."""

    def __init__(self, steps, make, stop_at):
        super().__init__(steps, make)
        self.stop_at = stop_at

    def steps(self, begin, end):
        for step, batches in enumerate(super().steps(begin, end), begin):
            if step == self.stop_at:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)
            yield batches


@every_method
@pytest.mark.parametrize("stop_at", [2, 5])
def test_interrupted_and_resumed_training_is_bit_identical(method, stop_at, tmp_path):
    watching = Watching()

    def train(folder, stop_at=-1):
        folder.mkdir(exist_ok=True)
        built = BUILDERS[method]()
        batches = StopAt(6, lambda step: batch(step, built), stop_at)
        runtime = RuntimeConfig(CPU, log_every=2)
        fit(built, batches, SPEC, runtime, folder, seed=3, progress=watching)
        return built

    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "parts", stop_at)
    assert caught.value.exit_code == 143
    assert not any("going on" in said for said in watching.said)
    resumed = train(tmp_path / "parts")
    (told,) = [said for said in watching.said if "going on" in said]
    assert told == f"training: going on from epoch {1 if stop_at == 2 else 2} of 2"
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name

    def figures(folder):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return {row["step"] for row in rows}

    assert figures(tmp_path / "whole") == figures(tmp_path / "parts")


def test_accumulated_micro_batches_equal_one_batch(tmp_path):
    """Without BatchNorm and queue effects: a linear encoder, where both are the same sum."""
    from stubs import StubEncoder

    from vidssl.clips.batch import ClipBatch
    from vidssl.methods import InfoNCE, InfoNCEConfig

    weight = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    clips = torch.randn(8, 2, 1, 1, 1, 24, generator=torch.Generator().manual_seed(1))
    numbers = torch.arange(8)

    def micro(rows):
        return ClipBatch({"rgb": clips[rows]}, numbers[rows], numbers[rows], numbers[rows])

    ends = []
    for parts in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        method = InfoNCE(InfoNCEConfig(queue=16), StubEncoder("rgb", weight)).train()
        optimizer = make_optimizer(TrainSpec(optimizer="sgd", lr=0.5), method.parameters())
        for step in range(3):
            train_step(method, method, optimizer, [micro(p) for p in parts], step_state(step))
        ends.append((method.query.weight.detach(), method.queue.feature))
    torch.testing.assert_close(ends[0][0], ends[1][0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ends[0][1], ends[1][1], atol=1e-6, rtol=1e-5)
