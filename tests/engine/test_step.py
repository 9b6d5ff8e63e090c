"""What a step costs beside the network: the device is not waited for, and the bench of it runs."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from benchmarks import step as bench
from methods import BUILDERS, batch

from vidssl.base.errors import UsageError, VidsslError
from vidssl.engine import meter as engine_meter
from vidssl.engine.loop import train_step
from vidssl.engine.meter import Meter
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import StepOutput, StepState
from vidssl.training.options import TrainingOptions, resolve

CPU = torch.device("cpu")
STEPS = 6


@pytest.mark.parametrize("method", BUILDERS)
def test_a_step_asks_the_device_nothing(method):
    """Once queues are full; on a GPU each question would empty its queue of work."""
    built = BUILDERS[method]().train()
    optimizer = make_optimizer(TrainSpec(batch_size=4), built.parameter_groups())
    meter = Meter(CPU)

    def step(number: int) -> None:
        step_state = StepState(0, 0, number, STEPS)
        outputs = train_step(built, built, optimizer, batch(number, built), step_state)
        meter.add(outputs, 4)

    for number in range(STEPS - 1):
        step(number)
    with bench.HostWaits() as asked:
        step(STEPS - 1)
    assert asked.count == drawn_on_the_host(method)
    with bench.HostWaits() as asked:
        meter.fetch()
    assert asked.count > 0, "the counter counts"


def drawn_on_the_host(method: str) -> int:
    """How many numbers a method draws from the clock's generator, which lies on the host."""
    drawn = {"coclr": 1, "cpc": 1, "cocon": 2, "finetune": 2}
    return drawn.get(method.removesuffix("-batch"), 0)


def test_means_of_figures_leave_out_what_is_no_number():
    meter = Meter(CPU)
    for loss, top1 in ((1.0, math.nan), (3.0, 0.5), (None, math.nan)):
        made = None if loss is None else torch.tensor(loss)
        meter.add([StepOutput(made, {"top1": torch.tensor(top1), "never": torch.tensor(math.nan)})],
                  samples=2)  # fmt: skip
    row = meter.fetch()
    assert (row["loss"], row["top1"]) == (2.0, 0.5) and math.isnan(row["never"])
    assert row["samples_per_second"] > 0 and row["data_wait"] == 0


def test_a_loss_that_is_no_number_ends_training():
    meter = Meter(CPU)
    meter.add([StepOutput(torch.tensor(math.inf))], samples=2)
    with pytest.raises(VidsslError, match="diverged"):
        meter.fetch()


def test_the_wait_for_data_is_measured(monkeypatch):
    times = iter([0.0, 1.0, 1.25, 4.0])  # begin, wait from 1 to 1.25, fetch at 4
    monkeypatch.setattr(engine_meter, "time", SimpleNamespace(monotonic=lambda: next(times, 4.0)))
    meter = Meter(CPU)
    with meter.waiting():
        pass
    meter.add([StepOutput(torch.tensor(1.0))], samples=8)
    row = meter.fetch()
    assert row["data_wait"] == 0.25 / 4 and row["samples_per_second"] == 2


# ── precision


def test_an_unknown_precision_is_refused_before_anything_is_looked_up():
    with pytest.raises(UsageError, match="no precision fp16; there are bf16 and float32"):
        resolve(TrainingOptions(precision="fp16"), "pretrain")


def test_compiling_what_is_recomputed_is_refused():
    with pytest.raises(UsageError, match="leave --compile or --recompute away"):
        resolve(TrainingOptions(compile=True, recompute=True), "pretrain")


def test_a_cpu_computes_in_float32_unless_told():
    told = TrainingOptions(device="cpu")
    assert resolve(told, "pretrain").precision == "float32"
    assert resolve(replace(told, precision="bf16"), "pretrain").precision == "bf16"


def test_bf16_is_of_backbones_alone():
    encoder = BUILDERS["infonce"]().query
    x = torch.randn(2, 3, 4, 32, 32)
    plain = encoder.features(x)
    encoder.half_precision = True
    half = encoder.features(x)
    assert (plain.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert encoder.project(x).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


# ── the bench


def test_the_bench_prints_a_row_for_each_way(capsys):
    bench.main(["--backbone", "tiny", "--rounds", "1"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 + 3 + 3 + 3 + 2
    ours = [row for row in rows if "vidssl" in row or "fused" in row]
    assert len(ours) == 5 and all(row.endswith("| 0 |") for row in ours)


def test_all_ways_of_moving_the_key_encoder_give_the_same():
    ends = []
    for move in (bench.move_each, bench.move_by_lerp, bench.update_momentum):
        query, key = bench.network("tiny", CPU), bench.network("tiny", CPU)
        torch.nn.init.ones_(next(query.parameters()))
        move(key, query, 0.9)
        ends.append(torch.cat([p.detach().flatten() for p in key.parameters()]))
    assert ends[0].equal(ends[2])
    torch.testing.assert_close(ends[1], ends[0])


@pytest.mark.parametrize("make", [bench.adam, bench.sgd, bench.larc])
def test_optimisers_for_all_tensors_at_once_equal_those_tensor_by_tensor(make, monkeypatch):
    ends, make_network = [], bench.network
    for way in bench.WAYS:
        network = make_network("tiny", CPU)
        monkeypatch.setattr(bench, "network", lambda *told, made=network: made)
        make("tiny", CPU, way)[1]()
        ends.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert not ends[0].equal(
        torch.cat([p.flatten() for p in make_network("tiny", CPU).parameters()])
    )
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-7, rtol=1e-5)
