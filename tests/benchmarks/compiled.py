"""Measures `--compile` on a CPU: a training step before and after, and the first one.

    python tests/benchmarks/compiled.py

InfoNCE in float32 with one thread; the plain step and the compiled one in turn, each on a network
of its own with the same weights and batch. *ms* is the median over rounds, in process time, so that
other work on the machine counts little. *First step*: CPU seconds of the process and of the
compilers it starts, kernels made anew in an empty folder (without --compile such a step is one like
all others). *First loss apart*: relative, of the compiled network, and of the plain one when its
clips are disturbed by a millionth; an untrained S3D makes much of such differences, so later losses
say nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# Before torch is loaded: compilers as children of this process, whose time is then known.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import RuntimeConfig, prepare, train_step
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import InfoNCE, InfoNCEConfig, StepState

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """A network and what it is fed."""

    backbone: str
    frames: int
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.backbone}, {self.batch} clips of {self.frames}×{self.size}×{self.size}"


SETTINGS = (Setting("tiny", 8, 64, 16), Setting("s3d", 16, 64, 4))


class Training:
    """InfoNCE of random weights on one batch of noise."""

    def __init__(self, setting: Setting, compiled: bool, disturbed: float = 0.0) -> None:
        torch.manual_seed(0)
        spec = EncoderSpec("rgb", setting.backbone, 3, setting.frames, 1, setting.size)
        self.method = InfoNCE(InfoNCEConfig(), Encoder(spec))
        self.optimizer = prepare(self.method, TrainSpec(), RuntimeConfig(CPU, compile=compiled))
        size = (setting.batch, 2, 3, setting.frames, setting.size, setting.size)
        number = torch.arange(setting.batch)
        clips = torch.randn(size) * (1 + disturbed)
        self.batch = ClipBatch({"rgb": clips}, number, number, number)
        self.losses: list[float] = []

    def step(self) -> None:
        step_state = StepState(0, 0, len(self.losses))
        (output,) = train_step(self.method, self.method, self.optimizer, [self.batch], step_state)
        assert output.loss is not None
        self.losses.append(float(output.loss))


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, who))


def measure(setting: Setting, rounds: int) -> dict[str, float]:
    """Returns milliseconds of both steps, the seconds of the first one, and losses' difference."""
    plain, compiled = Training(setting, compiled=False), Training(setting, compiled=True)
    disturbed = Training(setting, compiled=False, disturbed=1e-6)
    plain.step()
    disturbed.step()
    begin, since = cpu_seconds(), time.perf_counter()
    compiled.step()
    first, by_clock = cpu_seconds() - begin, time.perf_counter() - since
    times: dict[str, list[float]] = {"plain": [], "compiled": []}
    for _ in range(rounds):
        for name, training in (("plain", plain), ("compiled", compiled)):
            begin = time.process_time()
            training.step()
            times[name].append(1000 * (time.process_time() - begin))
    apart, apart_disturbed = (
        abs(other.losses[0] / plain.losses[0] - 1) for other in (compiled, disturbed)
    )
    steps = {name: median(found) for name, found in times.items()}
    return steps | {
        "first": first, "by the clock": by_clock, "apart": apart, "disturbed": apart_disturbed
    }  # fmt: skip


def row(setting: Setting, found: dict[str, float]) -> str:
    plain, compiled = found["plain"], found["compiled"]
    cells = [str(setting), f"{plain:.1f}", f"{compiled:.1f}", f"{compiled / plain:.2f}"]
    cells += [f"{found['first']:.0f}", f"{found['by the step_state']:.0f}"]
    cells += [f"{found['apart']:.0e}", f"{found['disturbed']:.0e}"]
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default=None, help="default: tiny and s3d")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    columns = ("InfoNCE", "plain ms", "compiled ms", "ratio", "first step s", "by the clock")
    print(f"| {' | '.join(columns)} | first loss apart | disturbed |")
    print("|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        if arguments.backbone in (None, setting.backbone):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
                torch.compiler.reset()
                print(row(setting, measure(setting, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
