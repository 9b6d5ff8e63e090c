"""Measures what the step does beside the network: optimisers, moving the key encoder, figures.

    python tests/benchmarks/step.py                     on a CPU
    python tests/benchmarks/step.py --device cuda

Each row is the slow, obvious way (tensor by tensor, from Python) beside the ways there are to do
the same to all tensors at once; all of them in turn in one run, on the parameters of one backbone.
*milliseconds* is the median over rounds: of process time on a CPU, so that other work on the
machine counts little; by the clock, with the device waited for, on CUDA. *waits* is how often the
host waited for the device, counted as calls that bring a number to the host (on a CPU also Adam's
step counters, which lie on the host even where parameters are on CUDA).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vidssl.backbones import BACKBONES
from vidssl.engine.larc import LARC
from vidssl.engine.meter import Meter
from vidssl.methods import StepOutput
from vidssl.methods.modules.momentum_encoder import update_momentum

Way = tuple[str, Callable[[], object]]
METRICS = ("top1", "queue_fill", "knn", "purity", "positives")  # CoCLR's


# ── the slow, obvious ways ───────────────────────────────────────────────────────────────────


@torch.no_grad()
def move_each(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """The key encoder's average, tensor by tensor."""
    for k, q in zip(key.parameters(), query.parameters(), strict=True):
        k.mul_(momentum).add_(q, alpha=1 - momentum)


@torch.no_grad()
def move_by_lerp(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """The same in one pass over memory, rounded otherwise."""
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - momentum)


@torch.no_grad()
def larc_each(optimizer: LARC) -> None:
    """LARC's scaling as apex writes it: tensor by tensor, and the host asks whether norms are 0."""
    group = optimizer.param_groups[0]
    trust, weight_decay = group["trust"], group["larc_weight_decay"]
    for p in group["params"]:
        weight, gradient = p.norm(), p.grad.norm()
        if weight != 0 and gradient != 0:
            ratio = trust * weight / (gradient + weight_decay * weight + 1e-8)
            p.grad.add_(p, alpha=weight_decay).mul_(ratio)
    torch.optim.SGD.step(optimizer)


def figures_each(sums: dict[str, float], outputs: Sequence[StepOutput]) -> None:
    """Figures as numbers of the host, at once."""
    for output in outputs:
        for name, value in ({"loss": output.loss} | output.metrics).items():
            number = float(value)
            if number == number:
                sums[name] = sums.get(name, 0.0) + number


# ── what is compared ─────────────────────────────────────────────────────────────────────────


def rows(backbone: str, device: torch.device) -> dict[str, list[Way]]:
    """Returns {what: ways to do it, the slow one first}."""
    query, key = network(backbone, device), network(backbone, device)
    output = StepOutput(
        torch.rand((), device=device), {name: torch.rand((), device=device) for name in METRICS}
    )
    meter = Meter(device)
    return {
        "moving the key encoder": [
            ("tensor by tensor", lambda: move_each(key, query, 0.999)),
            ("lerp of all at once", lambda: move_by_lerp(key, query, 0.999)),
            ("all at once: vidssl", lambda: update_momentum(key, query, 0.999)),
        ],
        "Adam": [adam(backbone, device, way) for way in ("each", "foreach", "fused")],
        "SGD with momentum": [sgd(backbone, device, way) for way in ("each", "foreach", "fused")],
        "LARC": [larc(backbone, device, way) for way in ("each", "foreach", "fused")],
        "figures of a CoCLR step": [
            ("numbers at once", lambda: figures_each({}, [output])),
            ("sums on the device: vidssl", lambda: meter.add([output], 1)),
        ],
    }


def network(backbone: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    made = BACKBONES[backbone](3).to(device)
    for p in made.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    return made


WAYS = {"each": "tensor by tensor", "foreach": "foreach", "fused": "fused"}


def options(way: str) -> dict[str, bool]:
    return {"foreach": way == "foreach", "fused": way == "fused"}


def adam(backbone: str, device: torch.device, way: str) -> Way:
    parameters = network(backbone, device).parameters()
    return WAYS[way], torch.optim.Adam(parameters, weight_decay=1e-5, **options(way)).step


def sgd(backbone: str, device: torch.device, way: str) -> Way:
    parameters = network(backbone, device).parameters()
    return WAYS[way], torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, **options(way)).step


def larc(backbone: str, device: torch.device, way: str) -> Way:
    optimizer = LARC(network(backbone, device).parameters(), lr=1e-3, weight_decay=1e-5)
    for group in optimizer.param_groups:
        group.update(options(way))
    if way == "each":
        return WAYS[way], lambda: larc_each(optimizer)
    return f"all at once, SGD {WAYS[way]}", optimizer.step


# ── measuring ────────────────────────────────────────────────────────────────────────────────


class HostWaits(TorchDispatchMode):
    """Counts the operations that bring a number, or a length, from the device to the host."""

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func.overloadpacket.__name__ in self.ASKING
        return func(*args, **(kwargs or {}))


def waits(work: Callable[[], object]) -> int:
    with HostWaits() as seen:
        work()
    return seen.count


def milliseconds(ways: Sequence[Way], rounds: int, device: torch.device) -> list[float]:
    """Returns the median time of each way, all of them measured in turn."""
    cuda = device.type == "cuda"
    step_state = time.perf_counter if cuda else time.process_time
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 2):
        for found, (_, work) in zip(times, ways, strict=True):
            begin = step_state()
            work()
            if cuda:
                torch.cuda.synchronize()
            found.append(1000 * (step_state() - begin))
    return [median(found[2:]) for found in times]


def table(backbone: str, device: torch.device, rounds: int) -> str:
    lines = ["| what | way | ms | times the first | waits |", "|---|---|---|---|---|"]
    for what, ways in rows(backbone, device).items():
        found = milliseconds(ways, rounds, device)
        for (way, work), ms in zip(ways, found, strict=True):
            lines.append(f"| {what} | {way} | {ms:.3f} | {ms / found[0]:.2f} | {waits(work)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", default=None, help="default: tiny and s3d, one after another")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    for backbone in (arguments.backbone,) if arguments.backbone else ("tiny", "s3d"):
        made = BACKBONES[backbone](3)
        tensors = len(list(made.parameters()))
        million = sum(p.numel() for p in made.parameters()) / 1e6
        print(f"\n{backbone}: {tensors} tensors, {million:.1f} million numbers\n")
        print(table(backbone, torch.device(arguments.device), arguments.rounds))


if __name__ == "__main__":
    main()
