"""How fast a training step is, what bounds it, and how large a batch fits.

    python tests/cuda/training_step.py --out DIR [--published DIR]

InfoNCE and CoCLR on one device, with a batch that lies there: no loading. Each way to compute the
step in turn: float32 in the layout of the published code, then channels last, bf16, compiled,
recomputed; and the published code's own model and loop, from a checkout of it that the user names.
Prints tables: samples/s, peak memory, the largest batch that fits, where the time goes, what share
of the memory's bandwidth is reached, and GPU hours that follow for the recipes. On a CPU, to see
that it works:

    python tests/cuda/training_step.py --out DIR --device cpu --backbone tiny --frames 8 --size 64 \
        --batch-size 4
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from budget import Budget
from moved_bytes import bandwidth, kind_of, moved_by

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import RuntimeConfig, prepare, train_step
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import METHODS, Method, StepState
from vidssl.recipes.recipe import load_recipe

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import published_code

WARM = 3  # steps before those that are timed
MOST, MOST_COMPILED = 30.0, 100.0  # seconds for one way to compute the step
RECIPES = (  # recipe, method, videos of its training set, runs that a full training takes
    ("infonce-ucf101", "infonce", 9_537, 2),
    ("coclr-ucf101", "coclr", 9_537, 4),
    ("infonce-k400", "infonce", 240_000, 2),
    ("coclr-k400", "coclr", 240_000, 4),
)


@dataclass(frozen=True)
class Way:
    """A way to compute the step.

    Attributes:
        search: cuDNN tries its kernels and keeps the fastest, as in vidssl's loop and in the
            published one.
    """

    name: str
    half: bool = False
    channels_last: bool = False
    compile: bool = False
    recompute: bool = False
    search: bool = True


PLAIN = Way("float32")
USUAL = Way("bf16, channels last (vidssl's default)", True, True)
COMPILED = Way("bf16, channels last, compiled", True, True, compile=True)
RECOMPUTED = Way("bf16, channels last, recomputed", True, True, recompute=True)
WAYS = (
    PLAIN,
    Way("float32, channels last", False, True),
    Way("bf16", True),
    Way("bf16, channels last, kernels not searched", True, True, search=False),
    USUAL,
    COMPILED,
    RECOMPUTED,
)
PUBLISHED = "published code: its model and loop, float32"


@dataclass(frozen=True)
class Step:
    """How a way to compute the step went.

    Attributes:
        samples_per_second: None where it was not measured, for the reason in `note`.
        milliseconds: of a step.
        launch: milliseconds until the host has handed over one step, the device being idle.
        peak_gib: most memory allocated; None on a CPU.
    """

    method: str
    way: str
    samples_per_second: float | None = None
    milliseconds: float | None = None
    launch: float | None = None
    peak_gib: float | None = None
    note: str = ""


@dataclass
class Bench:
    """One method on one device, computed in one way.

    Attributes:
        name: of the method.
        frames, size: of a clip.
    """

    name: str
    way: Way
    backbone: str
    frames: int
    size: int
    device: torch.device

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        views = ("rgb",) if self.name == "infonce" else ("rgb", "flow")
        self.channels = {"rgb": 3, "flow": 2}
        kind = METHODS[self.name]
        encoders = {
            v: Encoder(EncoderSpec(v, self.backbone, self.channels[v], self.frames, 1, self.size))
            for v in views
        }
        self.method: Method = kind.build(kind.Config(), encoders, 0)
        self.method.assume_queue_full()
        self.spec = TrainSpec()
        way = self.way
        runtime = RuntimeConfig(self.device, way.half, compile=way.compile, recompute=way.recompute)
        torch.backends.cudnn.benchmark = self.way.search
        self.optimizer = prepare(self.method, self.spec, runtime)
        last = torch.channels_last_3d if self.way.channels_last else torch.contiguous_format
        self.method.to(memory_format=last)  # type: ignore[call-overload]
        self.steps = 0

    def batch(self, samples: int) -> ClipBatch:
        """Returns a batch of noise on the device, in the layout of the loader or the plain one."""
        t, s = self.frames, self.size
        clips = {}
        for view in self.method.batch_spec.views:
            c = self.channels[view]
            n = 1 if view in self.method.batch_spec.last_only else 2
            if self.way.channels_last:
                x = torch.randn(samples, n, t, s, s, c, device=self.device)
                clips[view] = x.permute(0, 1, 5, 2, 3, 4)
            else:
                clips[view] = torch.randn(samples, n, c, t, s, s, device=self.device)
        number = torch.arange(samples, device=self.device)
        return ClipBatch(clips, number, number, number)

    def step(self, batch: ClipBatch) -> None:
        """Does one step of training."""
        step_state = StepState(0, 0, self.steps)
        train_step(self.method, self.method, self.optimizer, [batch], step_state)
        self.steps += 1


@contextmanager
def device_alone(device: torch.device) -> Iterator[None]:
    """Frees what the device held before, and counts its peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    torch.compiler.reset()
    yield


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def measure(bench: Bench, samples: int, seconds: float) -> Step:
    """Times steps of one way until `seconds` have passed, 50 at most."""
    batch = bench.batch(samples)
    for _ in range(WARM):
        bench.step(batch)
    wait(bench.device)
    begin = time.perf_counter()
    bench.step(batch)
    launch = time.perf_counter() - begin
    wait(bench.device)
    each = time.perf_counter() - begin
    count = max(1, min(50, int(seconds / each)))
    begin = time.perf_counter()
    for _ in range(count):
        bench.step(batch)
    wait(bench.device)
    each = (time.perf_counter() - begin) / count
    return Step(
        bench.name, bench.way.name, samples / each, 1000 * each, 1000 * launch, peak(bench.device)
    )


def steps(arguments: argparse.Namespace, budget: Budget) -> list[Step]:
    """Measures all ways, of both methods, and the published code."""
    found, device = [], torch.device(arguments.device)
    network = (arguments.backbone, arguments.frames, arguments.size, device)
    for method in ("infonce", "coclr"):
        for way in WAYS:
            if way.compile and not arguments.compile:
                found.append(Step(method, way.name, note="not asked for"))
            else:
                found.append(measure_within(budget, method, way, network, arguments))
        found.append(published(method, arguments, budget))
        for one in found[-len(WAYS) - 1 :]:
            print(step_row(one), flush=True)
    return found


def measure_within(
    budget: Budget,
    method: str,
    way: Way,
    network: tuple[Any, ...],
    arguments: argparse.Namespace,
) -> Step:
    """Measures one way, where there is time for it."""
    name, most = f"{method}, {way.name}", MOST_COMPILED if way.compile else MOST
    if budget.allows(name, 10.0):
        with budget.limited(name, most), device_alone(network[-1]):
            return measure(Bench(method, way, *network), arguments.batch_size, arguments.seconds)
    return Step(method, way.name, note="there was no time for it")


def published(method: str, arguments: argparse.Namespace, budget: Budget) -> Step:
    """Measures the published code, where its checkout was named."""
    if arguments.published is None:
        return Step(method, PUBLISHED, note="no --published was given")
    name, device = f"{method}, {PUBLISHED}", torch.device(arguments.device)
    if not budget.allows(name, 10.0):
        return Step(method, PUBLISHED, note="there was no time for it")
    with budget.limited(name, 2 * MOST), device_alone(device):
        each = published_code.seconds_per_step(
            arguments.published, method, arguments.batch_size, arguments.frames, arguments.size,
            device, WARM, arguments.seconds,
        )  # fmt: skip
        return Step(method, PUBLISHED, arguments.batch_size / each, 1000 * each, None, peak(device))


# ── what fits, and what bounds ───────────────────────────────────────────────────────────────


def largest_batches(
    arguments: argparse.Namespace, budget: Budget
) -> dict[str, dict[str, int | None]]:
    """Returns {method: {way: samples}}: the largest batch, a multiple of 8, that trains."""
    found: dict[str, dict[str, int | None]] = {}
    for method in ("infonce", "coclr"):
        found[method] = {}
        for way in (PLAIN, USUAL, RECOMPUTED):
            name, found[method][way.name] = f"largest batch, {method}, {way.name}", None
            if arguments.device == "cuda" and budget.allows(name, 5.0):
                with budget.limited(name, MOST):
                    found[method][way.name] = largest_batch(method, way, arguments)
    return found


def largest_batch(method: str, way: Way, arguments: argparse.Namespace) -> int:
    """Finds it from the memory of two small batches, and tries it."""
    device = torch.device("cuda")
    bench = Bench(method, way, arguments.backbone, arguments.frames, arguments.size, device)
    taken = []
    for samples in (8, 16):
        with device_alone(device):
            for _ in range(2):
                bench.step(bench.batch(samples))
            taken.append(torch.cuda.max_memory_reserved())
    each = max(taken[1] - taken[0], 1) / 8
    samples = int(16 + (torch.cuda.mem_get_info()[1] - taken[1]) / each) // 8 * 8
    while samples > 16:
        try:
            with device_alone(device):
                for _ in range(2):
                    bench.step(bench.batch(samples))
            return samples
        except torch.OutOfMemoryError:
            bench.optimizer.zero_grad(set_to_none=True)
            samples = int(samples * 0.94) // 8 * 8
    return 16


@dataclass(frozen=True)
class Bound:
    """What bounds a step of a method, computed the usual way.

    Attributes:
        share_of_time: {kind of operation: its share of the device's time}.
        gigabytes: that the step moves, by kind.
        bandwidth: of the device, GB/s, when it copies.
        least: milliseconds that moving the bytes takes at that.
        reached: share of the bandwidth that a step reaches; and where it was measured, compiled.
    """

    method: str
    share_of_time: dict[str, float]
    gigabytes: dict[str, float]
    bandwidth: float
    least: float
    reached: dict[str, float]


def bound(
    method: str, arguments: argparse.Namespace, measured: Sequence[Step], copies: float
) -> Bound:
    device = torch.device(arguments.device)
    with device_alone(device):
        bench = Bench(method, USUAL, arguments.backbone, arguments.frames, arguments.size, device)
        batch = bench.batch(arguments.batch_size)
        bench.step(batch)
        moved = moved_by(lambda: bench.step(batch))
        spent = profiled(bench, batch)
    total = sum(moved.values())
    least = 1000 * total / copies
    reached = {
        one.way: least / one.milliseconds
        for one in measured
        if one.method == method and one.way in (USUAL.name, COMPILED.name) and one.milliseconds
    }
    whole = sum(spent.values()) or 1.0
    return Bound(
        method,
        {kind: value / whole for kind, value in spent.most_common()},
        {kind: value / 1e9 for kind, value in moved.most_common()},
        copies / 1e9,
        least,
        reached,
    )


def profiled(bench: Bench, batch: ClipBatch) -> Counter[str]:
    """Returns microseconds of the device in two steps, by kind of operation."""
    cuda = bench.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(2):
            bench.step(batch)
        wait(bench.device)
    spent: Counter[str] = Counter()
    for event in profile.key_averages():
        if event.key.startswith("aten::"):
            taken = event.self_device_time_total if cuda else event.self_cpu_time_total
            spent[kind_of(event.key)] += taken
    return spent


# ── what follows ─────────────────────────────────────────────────────────────────────────────


def hours(measured: Sequence[Step]) -> list[dict[str, Any]]:
    """Returns GPU hours of the recipes by every way's samples/s; None where that is not known."""
    rows = []
    for name, method, videos, runs in RECIPES:
        epochs = load_recipe(name, method, "rgb", ()).train.epochs
        row: dict[str, Any] = {"recipe": name, "videos": videos, "epochs": epochs, "runs": runs}
        for way in (PUBLISHED, PLAIN.name, USUAL.name, COMPILED.name):
            speed = next(
                (s.samples_per_second for s in measured if (s.method, s.way) == (method, way)), None
            )
            row[way] = videos * epochs * runs / speed / 3600 if speed else None
        rows.append(row)
    return rows


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def number(value: float | None, digits: int = 3) -> str:
    return "unmeasured" if value is None else f"{value:,.{digits}g}"


def step_row(one: Step) -> str:
    cells = [one.method, one.way, number(one.samples_per_second), number(one.milliseconds)]
    cells += [number(one.launch), number(one.peak_gib), one.note]
    return f"| {' | '.join(cells)} |"


def markdown(results: dict[str, Any]) -> str:
    """Returns all results as tables."""
    lines = ["| method | way | samples/s | ms a step | ms to launch it | peak GiB | |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [step_row(Step(**one)) for one in results["steps"]]
    for method, speed in results["against_published"].items():
        told = "unmeasured" if speed is None else f"{speed:.2f} times"
        lines.append(f"\n{method}: vidssl's fastest against the published code: {told}")
    ways = [PLAIN.name, USUAL.name, RECOMPUTED.name]
    lines += ["", f"| largest batch | {' | '.join(ways)} |", "|---|---|---|---|"]
    for method, found in results["largest"].items():
        lines.append(f"| {method} | {' | '.join(number(found[way], 4) for way in ways)} |")
    for one in map(lambda found: Bound(**found), results["bounds"]):
        lines += ["", f"{one.method}: a step moves {sum(one.gigabytes.values()):.3g} GB; copying,"]
        lines += [f"the device moves {one.bandwidth:,.0f} GB/s: {one.least:.3g} ms at least."]
        lines += [f"{way}: {share:.0%} of that bandwidth." for way, share in one.reached.items()]
        lines += ["", "| operations | share of the time | GB moved |", "|---|---|---|"]
        for kind in sorted(one.gigabytes, key=one.gigabytes.get, reverse=True):  # type: ignore[arg-type]
            spent = one.share_of_time.get(kind, 0.0)
            lines.append(f"| {kind} | {spent:.0%} | {one.gigabytes[kind]:.3g} |")
    columns = [PUBLISHED, PLAIN.name, USUAL.name, COMPILED.name]
    lines += ["", f"| GPU hours | videos × epochs × runs | {' | '.join(columns)} |"]
    lines += ["|" + "---|" * (2 + len(columns))]
    for row in results["hours"]:
        size = f"{row['videos']:,} × {row['epochs']} × {row['runs']}"
        cells = " | ".join(number(row[way]) for way in columns)
        lines.append(f"| {row['recipe']} | {size} | {cells} |")
    if results["cut"]:
        lines += ["", f"No time was left for: {'; '.join(results['cut'])}."]
    return "\n".join([*lines, ""])


def against_published(measured: Sequence[Step]) -> dict[str, float | None]:
    """Returns, for each method, the fastest of ours over the published code's samples/s."""
    found: dict[str, float | None] = {}
    for method in ("infonce", "coclr"):
        speeds = {s.way: s.samples_per_second for s in measured if s.method == method}
        theirs = speeds.pop(PUBLISHED)
        found[method] = max(filter(None, speeds.values()), default=0.0) / theirs if theirs else None
    return found


def run(arguments: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """Measures everything that there is time for."""
    measured = steps(arguments, budget)
    device = torch.device(arguments.device)
    bounds = []
    for method in ("infonce", "coclr"):
        name = f"{method}: what bounds it"
        if budget.allows(name, 5.0):
            with budget.limited(name, MOST):
                size = 2**30 if device.type == "cuda" else 2**26
                bounds.append(asdict(bound(method, arguments, measured, bandwidth(device, size))))
    return {
        "steps": [asdict(one) for one in measured],
        "against_published": against_published(measured),
        "largest": largest_batches(arguments, budget),
        "bounds": bounds,
        "hours": hours(measured),
        "cut": budget.cut,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds those of this script that are of the step alone."""
    parser.add_argument("--published", type=Path, default=None, help="a checkout of CoCLR's code")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timed steps, each way")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all; inf: no limit")


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="s3d")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    add_options(parser)
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = run(arguments, Budget(arguments.budget))
    (arguments.out / "training_step.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "training_step.md").write_text(markdown(results))
    print(markdown(results))
    return results


if __name__ == "__main__":
    main()
