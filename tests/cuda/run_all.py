"""Trains and evaluates on a GPU at the papers' clip size, and measures how fast.

    python tests/cuda/run_all.py --out DIR

For a machine with a GPU and without PyAV: clips are rendered, their flow computed, and both
packed straight into shards; no video file is written or decoded. Then the training step by itself
(training_step.py) and loss curves in float32 and bf16 (precision.py); then, through the public
stages, pretrain rgb and flow, cotrain, probe, retrieve and finetune; and views are derived by
networks. All of it stops within the budget, 9 minutes unless told, and says what was cut. DIR gets
results.json, results.md and the workspace. With `--published CHECKOUT` the published code's step is
measured as well. On a CPU, to see that it works:

    python tests/cuda/run_all.py --out DIR --device cpu --backbone tiny \
        --frames 8 --size 64 --videos 24 --epochs 1 --derive 2 --detector-size 48 \
        --seconds 0.1 --no-compile
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import precision
import torch
import training_step
import tvl1
from budget import Budget
from derivers import derive_view, raft_flow
from rendered import make_pack

from vidssl.clips.gpu.gpu_batches import GpuBatchMaker, RegionBatchMaker
from vidssl.clips.gpu.nvjpeg_batches import NvjpegBatchMaker
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.loader import ClipLoader
from vidssl.dataset.synthetic_scene import MOTIONS
from vidssl.engine.log import read_log
from vidssl.stages import cotrain, evaluate_retrieval, finetune, pretrain, probe
from vidssl.training.training_run import TrainingPlan
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

RECIPE = "paper"

Result = tuple[Path | None, dict[str, Any]]  # folder of a log, where there is one; figures
MOST_CURVES = 150.0  # seconds


@dataclass(frozen=True)
class Measured:
    """How one piece of work went.

    Attributes:
        samples_per_second: videos a second, once warm; None where there is no such figure.
        data_wait: share of the time in which the device waited for data.
        peak_gib: most device memory that was allocated.
        figures: what else is worth knowing.
    """

    name: str
    seconds: float
    samples_per_second: float | None
    data_wait: float | None
    peak_gib: float | None
    figures: dict[str, float | str | None]


# ── measuring ────────────────────────────────────────────────────────────────────────────────


def measured(name: str, cuda: bool, work: Callable[[], Result]) -> Measured:
    """Runs `work`, which gives the folder of a training log (or None) and figures."""
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begin = time.monotonic()
    folder, figures = work()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.monotonic() - begin
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    speed, wait = speed_of(folder) if folder is not None else (None, None)
    found = Measured(name, round(seconds, 2), speed, wait, peak, figures)
    print(line(found), flush=True)
    return found


def speed_of(folder: Path) -> tuple[float, float]:
    """Returns samples per second and data wait of a training, without its first epoch."""
    rows = read_log(folder)
    warm = [row for row in rows if int(row["epoch"] or 0) > 1] or rows
    # Rows are means over their steps; the median is not thrown off by one slow row.
    return tuple(  # type: ignore[return-value]
        float(np.median([float(row[field] or 0) for row in warm]))
        for field in ("samples_per_second", "data_wait")
    )


def last_row(folder: Path) -> dict[str, Any]:
    row = read_log(folder)[-1]
    return {name: row.get(name) for name in ("loss", "top1", "knn", "purity", "feature_std")}


def loader(
    plan: TrainingPlan, views: Sequence[str], device: str, threads: int, decode: str = "host"
) -> ClipLoader:
    return ClipLoader(
        plan.data.videos,
        views,
        plan.recipe.clip,
        plan.recipe.augment,
        plan.recipe.train.batch_size,
        threads=threads,
        device=torch.device(device),
        decode=decode,
    )


def load_only(
    plan: TrainingPlan, device: str, threads: int, decode: str = "host"
) -> tuple[None, dict[str, Any]]:
    """Reads and augments two epochs of both views without any network."""
    batches = loader(plan, ("rgb", "flow"), device, threads, decode)
    begin, samples = time.monotonic(), 0
    for (micro,) in batches.steps(0, 2 * batches.steps_per_epoch):
        samples += len(micro.index)
    _wait_for(device)
    seconds = time.monotonic() - begin
    return None, {"samples_per_second, both views": samples / seconds}


def device_operations(plan: TrainingPlan, device: str) -> tuple[None, dict[str, Any]]:
    """Times what is left to the device of one batch of RGB, its regions or JPEG being at hand."""
    makers: dict[str, type[GpuBatchMaker[Any]]] = {"from regions": RegionBatchMaker}
    if device == "cuda":
        makers |= {
            "from regions, in plain PyTorch": RegionBatchMaker,
            "from JPEG": NvjpegBatchMaker,
        }
    count = plan.recipe.train.batch_size
    found: dict[str, Any] = {"samples": count}
    with ThreadPoolExecutor(4) as pool:
        for name, kind in makers.items():
            maker = kind(loader(plan, ("rgb",), "cpu", 1).sampler, torch.device(device))
            if name.endswith("PyTorch"):
                maker.transforms = TorchTransforms(maker.sampler, maker.device)
            rows = np.arange(count)
            pending = maker.begin(pool, 0, rows, rows)
            for sample in pending.samples:
                sample.result()
            seconds = []
            for _ in range(6):
                _wait_for(device)
                begin = time.monotonic()
                maker.finish(pending)
                _wait_for(device)
                seconds.append(time.monotonic() - begin)
            found[f"ms a batch {name}"] = 1000 * float(np.median(seconds[1:]))
            found[f"transforms {name}"] = type(maker.transforms).__name__
    return None, found


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# ── the whole run ────────────────────────────────────────────────────────────────────────────


class Chain:
    """The pipeline's stages on one workspace; each gives its log's folder and its figures."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.workspace = Workspace(arguments.out / "workspace")
        names = ("backbone", "frames", "size", "epochs", "batch_size")
        self.settings = tuple((name, getattr(arguments, name)) for name in names)
        self.common: dict[str, Any] = {
            "recipe": RECIPE,
            "settings": self.settings,
            "device": arguments.device,
            "threads": arguments.threads,
        }

    def pack(self) -> Result:
        a = self.arguments
        pack = make_pack(self.workspace, a.videos, a.length, a.stored, a.workers)
        size = sum(int(p["bytes"]) for p in pack.payload.values())
        return None, {"videos": a.videos, "MB": size / 1e6}

    def pretrain_options(self, stream: str) -> pretrain.PretrainOptions:
        return pretrain.PretrainOptions(stream=stream, **self.common)

    def pretrain(self, stream: str) -> Result:
        return finished(pretrain.run(self.workspace, self.pretrain_options(stream)).artifact)

    def cotrain(self) -> Result:
        return finished(cotrain.run(self.workspace, cotrain.CotrainOptions(**self.common)).artifact)

    def probe(self) -> Result:
        options = probe.ProbeOptions(device=self.arguments.device)
        report = probe.run(self.workspace, options).report
        assert report is not None
        return None, {"top1": report.top1, "error": report.error, "chance": report.chance}

    def retrieve(self) -> Result:
        options = evaluate_retrieval.EvaluateRetrievalOptions(device=self.arguments.device)
        report = evaluate_retrieval.run(self.workspace, options).report
        assert report is not None
        first = report.at(1)
        return None, {"R@1": first.recall, "error": first.error, "chance": first.chance}

    def finetune(self) -> Result:
        few = tuple(pair for pair in self.settings if pair[0] in ("epochs", "batch_size"))
        options = finetune.FinetuneOptions(**(self.common | {"settings": few}))
        result = finetune.run(self.workspace, options)
        folder, row = finished(result.trainings[0].artifact)
        assert result.test is not None and result.test.report is not None
        report = result.test.report
        return folder, row | {"test top1": report.top1, "error": report.error}


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    cuda = arguments.device == "cuda"
    found: list[Measured] = []
    budget = Budget(arguments.budget)

    def step(name: str, work: Callable[[], Result]) -> None:
        if budget.allows(name, 5.0):
            with budget.limited(name):
                found.append(measured(name, cuda, work))

    chain = Chain(arguments)
    found.append(measured("pack", cuda, chain.pack))  # whatever the budget: nothing goes without
    plan = pretrain.plan_pretraining(chain.workspace, chain.pretrain_options("rgb"))
    step("load only", lambda: load_only(plan, arguments.device, arguments.threads))
    if cuda:
        step("load only, JPEG decoded by the GPU", lambda: load_only(plan, "cuda", 4, "gpu"))
    step("device operations", lambda: device_operations(plan, arguments.device))
    training_step_results = training_step.run(arguments, budget)
    curves = curves_of(chain.workspace, arguments, budget)
    step("pretrain rgb", partial(chain.pretrain, "rgb"))
    step("pretrain flow", partial(chain.pretrain, "flow"))
    step("cotrain rgb", chain.cotrain)
    step("probe", chain.probe)
    step("retrieve --evaluate", chain.retrieve)
    step("finetune", chain.finetune)
    for view in ("pose", "mask"):
        step(f"derive {view}", partial(derived, view, arguments))
    for preset in ("large", "small"):
        step(f"flow raft {preset}", partial(flowed, preset, arguments))
    step("flow tvl1", partial(tvl1_flowed, arguments))
    return {
        "machine": machine(cuda),
        "settings": {k: str(v) for k, v in vars(arguments).items() if k != "out"},
        "recipe": plan.as_dict()["recipe"],
        "measured": [asdict(m) for m in found],
        "training_step": training_step_results,
        "precision": curves,
    }


def curves_of(
    workspace: Workspace, arguments: argparse.Namespace, budget: Budget
) -> dict[str, list[list[float]]] | None:
    """Returns loss curves in both precisions, on half the frames; None without time, or on a CPU.

    (There bf16 is not what is asked about, and torch's kernels of it are not sound.)
    """
    if arguments.device == "cpu":
        return None
    settings = {
        "backbone": arguments.backbone, "frames": max(arguments.frames // 2, 4),
        "size": arguments.size, "stride": 1, "epochs": 4 * arguments.epochs,
        "batch_size": arguments.batch_size // 2,
    }  # fmt: skip
    name = "loss curves in both precisions"
    if budget.allows(name, 20.0):
        with budget.limited(name, MOST_CURVES):
            return precision.curves(workspace, settings, arguments.device, 2, arguments.threads)
    return None


def derived(view: str, arguments: argparse.Namespace) -> tuple[None, dict[str, Any]]:
    size = arguments.detector_size
    folder = arguments.out / "weights"
    return None, derive_view(view, folder, arguments.derive, 240, size, arguments.device)


def flowed(preset: str, arguments: argparse.Namespace) -> tuple[None, dict[str, Any]]:
    short, folder = arguments.detector_size or 240, arguments.out / "weights"
    return None, raft_flow(preset, folder, arguments.derive, short, arguments.device)


def tvl1_flowed(arguments: argparse.Namespace) -> tuple[None, dict[str, Any]]:
    short = arguments.detector_size or 256
    words = ["--out", str(arguments.out), "--device", arguments.device]
    words += ["--size", f"{short * 4 // 3}x{short}", "--pairs", str(8 * arguments.derive)]
    words += ["--clips", "2", "--preset", "fast", "--plain"] if arguments.device == "cpu" else []
    results = tvl1.measure(tvl1.parse(words))
    return None, results["frames to bytes"] | results["roofline"] | results["times one core"]


def finished(checkpoint: Artifact | None) -> tuple[Path, dict[str, Any]]:
    assert checkpoint is not None
    return checkpoint.path, last_row(checkpoint.path)


def machine(cuda: bool) -> dict[str, Any]:
    return {
        "vidssl": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cv2": cv2.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "av loaded": "av" in sys.modules,
    }


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def line(found: Measured) -> str:
    parts = [f"{found.name}: {found.seconds} s"]
    if found.samples_per_second is not None and found.data_wait is not None:
        parts.append(f"{found.samples_per_second:.1f} samples/s, wait {found.data_wait:.0%}")
    parts += [f"{name} {shown(value)}" for name, value in found.figures.items()]
    return ", ".join(parts)


def shown(value: float | str | None) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return "–" if value is None else str(value)


def markdown(results: dict[str, Any]) -> str:
    """Returns the results as a table."""
    where = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    rows = [
        "| work | seconds | samples/s | data wait | peak GiB | |",
        "|---|---|---|---|---|---|",
    ]
    for one in results["measured"]:
        fields = ("seconds", "samples_per_second", "data_wait", "peak_gib")
        figures = ", ".join(f"{name} {shown(value)}" for name, value in one["figures"].items())
        cells = [one["name"], *(shown(one[field]) for field in fields), figures]
        rows.append(f"| {' | '.join(cells)} |")
    curves = results["precision"]
    tables = ["", precision.markdown(curves) if curves else "", "", ""]
    return "\n".join([where, "", *rows, *tables]) + training_step.markdown(results["training_step"])


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="s3d")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--length", type=int, default=64, help="frames of each video")
    parser.add_argument("--stored", type=int, default=144, help="short side of packed frames")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=None, help="default: 64, or all")
    parser.add_argument("--derive", type=int, default=512, help="frames of views to derive")
    parser.add_argument(
        "--detector-size",
        type=int,
        default=0,
        help="0: 256 of TV-L1, 240 of RAFT, else its own",
    )
    training_step.add_options(parser)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="that decode")
    parser.add_argument("--workers", type=int, default=cores, help="processes that render")
    arguments = parser.parse_args(words)
    if arguments.batch_size is None:
        training = sum(n // len(MOTIONS) % 3 != 2 for n in range(arguments.videos))
        arguments.batch_size = min(64, training // 2)
    return arguments


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = parse(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = run_all(arguments)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "results.md").write_text(markdown(results))
    print(markdown(results))
    return results


if __name__ == "__main__":
    main()
