"""`--compile`: the same losses to rounding, the same checkpoints, and runs go on with and without.

Fast tests trace and differentiate as torch.compile does and leave out its last part, which turns
the graph into C++; that takes a compiler and half a minute, so tests of it are slow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from methods import BUILDERS, batch
from stubs import FixedBatches
from two_processes import ends, launch

from vidssl.backbones import Encoder
from vidssl.base.errors import Interrupted
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method
from vidssl.workspace.checkpoints import load_encoder, save_encoder

CPU = torch.device("cpu")
STEPS = 4
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


class Stopping(FixedBatches):
    """Asks for a stop before one of the steps."""

    stop_at = -1

    def steps(self, begin: int, end: int) -> Iterator[list]:
        for step, batches in enumerate(super().steps(begin, end), begin):
            if step == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batches


def trained(method: str, folder: Path, *compiled: bool) -> tuple[Method, list[float]]:
    """Trains two epochs; with two values of `compiled`, stops after three steps and goes on."""
    spec = TrainSpec(epochs=2, batch_size=4, optimizer="sgd", lr=1e-3, weight_decay=0.0)
    folder.mkdir()
    for part, compile_it in enumerate(compiled):
        torch.compiler.reset()
        built = BUILDERS[method]()
        batches = Stopping(STEPS, lambda step, of=built: batch(step, of))
        runtime = RuntimeConfig(CPU, compile=compile_it, log_every=1)
        if part + 1 < len(compiled):
            batches.stop_at = 2
            with pytest.raises(Interrupted):
                fit(built, batches, spec, runtime, folder, seed=3)
        else:
            fit(built, batches, spec, runtime, folder, seed=3)
    rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * STEPS
    return built, [np.nan if row["loss"] is None else row["loss"] for row in rows]


def assert_the_same(one: Method, other: Method) -> None:
    """Holds that all tensors have the same names and, to rounding, values."""
    assert list(one.state_dict()) == list(other.state_dict())
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=2e-4, rtol=2e-3, msg=name)


@pytest.fixture
def traced(monkeypatch) -> None:
    """Lets torch.compile run its graphs as they are."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **told: compile_module(self, backend="aot_eager")
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Iterator[None]:
    """Keeps compiled kernels in a folder of these tests alone, which begins empty."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.mark.parametrize("method", BUILDERS)
def test_a_traced_backbone_trains_alike(method, traced, tmp_path):
    plain, losses = trained(method, tmp_path / "plain", False)
    torch._dynamo.utils.counters.clear()
    compiled, traced_losses = trained(method, tmp_path / "traced", True)
    encoders = [part for part in compiled.modules() if isinstance(part, Encoder)]
    if method == "coclr-batch":  # whose partner has said before what it knows
        encoders.remove(compiled.partner)
    seen = torch._dynamo.utils.counters
    # One graph for each backbone: none is broken, none is traced again for another batch.
    assert seen["frames"]["ok"] == seen["stats"]["unique_graphs"] == len(encoders)
    assert not seen["graph_break"]
    np.testing.assert_allclose(traced_losses, losses, rtol=1e-4, equal_nan=True)
    assert_the_same(plain, compiled)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_backbone_trains_alike(kernels, tmp_path):
    plain, losses = trained("coclr", tmp_path / "plain", False)
    compiled, compiled_losses = trained("coclr", tmp_path / "compiled", True)
    np.testing.assert_allclose(compiled_losses, losses, rtol=1e-3, equal_nan=True)
    assert not all(value.equal(compiled.state_dict()[n]) for n, value in plain.state_dict().items())
    assert_the_same(plain, compiled)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_goes_on_as_if_nothing_had_happened(kernels, tmp_path):
    whole, losses = trained("infonce", tmp_path / "whole", True)
    parts, losses_of_parts = trained("infonce", tmp_path / "parts", True, True)
    assert losses_of_parts == losses
    for name, value in whole.state_dict().items():
        assert value.equal(parts.state_dict()[name]), name


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("compiled", [(True, False), (False, True)])
def test_a_run_goes_on_with_and_without(compiled, kernels, tmp_path):
    plain, losses = trained("infonce", tmp_path / "plain", False)
    mixed, mixed_losses = trained("infonce", tmp_path / "mixed", *compiled)
    np.testing.assert_allclose(mixed_losses, losses, rtol=1e-3)
    assert_the_same(plain, mixed)


def test_a_compiled_encoders_file_is_read_as_any_other(traced, tmp_path):
    method, _ = trained("infonce", tmp_path / "run", True)
    read = load_encoder(save_encoder(method.query, tmp_path))
    names = list(BUILDERS["infonce"]().query.state_dict())
    assert list(read.state_dict()) == list(method.query.state_dict()) == names
    for name, value in method.query.state_dict().items():
        assert value.equal(read.state_dict()[name]), name


@pytest.mark.slow
@needs_compiler
def test_two_processes_compile_and_stay_in_sync(kernels, tmp_path):
    launch(["infonce", "compiled-infonce"], tmp_path)
    (plain, _), (first, second) = ends(tmp_path / "infonce"), ends(tmp_path / "compiled-infonce")
    for name, value in first["parameters"].items():
        assert value.equal(second["parameters"][name]), name
    assert list(first["buffers"]) == list(plain["buffers"])
    torch.testing.assert_close(first["parameters"], plain["parameters"], atol=1e-3, rtol=1e-2)


@pytest.mark.slow
@needs_compiler
def test_the_bench_prints_a_row(capsys):
    from benchmarks import compiled as bench

    bench.main(["--backbone", "tiny", "--rounds", "2"])
    (row,) = capsys.readouterr().out.splitlines()[2:]
    name, *cells = row.strip("| ").split(" | ")
    plain, compiled, ratio, first, _, apart, disturbed = map(float, cells)
    assert name == "tiny, 16 clips of 8×64×64" and ratio == pytest.approx(
        compiled / plain, abs=0.02
    )
    assert first > 1 and apart < 1e-4 and disturbed < 1e-4
