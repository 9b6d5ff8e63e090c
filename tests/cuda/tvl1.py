"""Measures TV-L1 on a GPU: pairs a second, what the time goes into, and the roofline's share.

    python tests/cuda/tvl1.py --out DIR

From decoded frames in host memory to encoded bytes, at 340×256 with OpenCV's default parameters:
grey conversion, upload, flow, stored size, 8 bits and JPEG 95, all overlapping. Frames are rendered
first, so neither video files nor PyAV are needed. Then what the device's time goes into, from
frames to flow. DIR gets tvl1.json and tvl1.md. On a CPU, to see that it works (with
TRITON_INTERPRET=1 the kernels run in Triton's interpreter, else plain PyTorch takes their place):

    python tests/cuda/tvl1.py --out DIR --device cpu --size 48x36 --pairs 4 --clips 1 \\
        --preset fast

A pair needs as many iterations as its motion asks for, so pairs a second depend on the clips. The
iterations are therefore given too, and the rate that pairs of 44.1 Mpx × iterations would have,
the mean of 28 real pairs of this size.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidssl.dataset.synthetic_scene import MOTIONS, render_clip
from vidssl.optical_flow.algorithms import TVL1_PRESETS, flow_method
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1
from vidssl.optical_flow.working_size import working_frame
from vidssl.views.flow import store_pixels
from vidssl.views.resize import short_side

# What an iteration moves a pixel, at least: it reads u (2), p (4) and the data term (3), and writes
# u and p, in float32. That neighbours are read from a cache is assumed.
BYTES = 4 * (2 + 4 + 3 + 2 + 4)
REAL_WORK = 44.1e6  # pixels × iterations of a real pair at 340 × 256
BOUND = 20.0
KERNELS = ("step", "stop_converged", "median_filter", "linearise", "enter_scale", "next_stage")
WARM, PROFILED = 32, 512  # pairs


@dataclass(frozen=True)
class Rate:
    """How fast some pairs were done.

    Attributes:
        work: pixels × iterations.
        bytes: of encoded flow; 0 where nothing was encoded.
    """

    pairs: int
    seconds: float
    work: int
    bytes: int = 0

    def figures(self) -> dict[str, float]:
        return {
            "pairs/s": self.pairs / self.seconds,
            "Mpx × iterations/pair": self.work / self.pairs / 1e6,
            "Gpx × iterations/s": self.work / self.seconds / 1e9,
            "pairs/s at 44.1 Mpx × iterations": self.work / self.seconds / REAL_WORK,
            "bytes/pair": self.bytes / self.pairs,
        }


# ── what is measured


def decoded(clips: int, frames: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Returns clips as a decoder would, uint8 RGB [T, H, W, 3]; size is (width, height)."""
    return [render_clip(motion, n, frames, size) for n, motion in zip(range(clips), cycle(MOTIONS))]


def grey_pairs(clips: Sequence[np.ndarray], count: int) -> Iterator[FramePair]:
    """Returns so many pairs of consecutive frames, clip after clip, over and over."""
    number = 0
    for clip in cycle(clips):
        for before, after in pairwise(working_frame(frame, None) for frame in clip):
            if number == count:
                return
            yield FramePair(number, before, after)
            number += 1


def encoded(flow: np.ndarray, stored: int | None) -> bytes:
    """Returns what extract-flow stores of a flow."""
    size = short_side(flow.shape[1], flow.shape[0], stored)
    if flow.shape[1::-1] != size:
        flow = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    return store_pixels(flow, "jpeg95", BOUND)


def run(
    method: Any, clips: Sequence[np.ndarray], count: int, stored: int | None, threads: int
) -> Rate:
    """Makes flow of so many pairs, and encodes it in threads (0: not at all)."""
    done, begin = method.work.pixel_iterations, time.perf_counter()
    waiting = []
    with ThreadPoolExecutor(threads or 1) as encoders:
        for _, flow in method.flows(grey_pairs(clips, count)):
            if threads:
                waiting.append(encoders.submit(encoded, flow, stored))
    size = sum(len(blob.result()) for blob in waiting)
    seconds = time.perf_counter() - begin
    return Rate(count, seconds, method.work.pixel_iterations - done, size)


# ── what it is compared with


def copy_bandwidth(device: torch.device, repeats: int = 20) -> float:
    """Returns the bytes a second that a plain copy reads and writes on the device."""
    size = 2**30 if device.type == "cuda" else 2**22
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    wait(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        target.copy_(source)
    wait(device)
    return 2 * size * repeats / (time.perf_counter() - begin)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_one_core(clips: Sequence[np.ndarray], preset: str, count: int) -> dict[str, float]:
    """Returns the pairs a second of one CPU core: by OpenCV, where it has TV-L1, and by PyTorch."""
    names = {"PyTorch": "tvl1"}
    if hasattr(cv2, "optflow"):
        names["OpenCV"] = "tvl1-opencv"
    pairs = list(grey_pairs(clips, count))
    rates, threads = {}, (cv2.getNumThreads(), torch.get_num_threads())
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for name, method in names.items():
        estimate = flow_method(method, TVL1_PRESETS[preset]).start()
        begin = time.process_time()
        for pair in pairs:
            estimate(pair.before, pair.after)
        rates[name] = count / (time.process_time() - begin)
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
    return rates


def breakdown(
    method: Any, clips: Sequence[np.ndarray], count: int, device: torch.device
) -> tuple[Rate, dict[str, float]]:
    """Returns the seconds that each kernel and copy took on the device, the longest first."""
    cuda = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        rate = run(method, clips, count, None, threads=0)
        wait(device)
    seconds: dict[str, float] = {}
    for event in profile.key_averages():
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        if took:
            # Triton may add a suffix.
            ours = [k for k in KERNELS if event.key == k or event.key.startswith(f"{k}_")]
            name = ours[0] if ours else event.key[:60]
            seconds[name] = seconds.get(name, 0.0) + took / 1e6
    return rate, dict(sorted(seconds.items(), key=lambda item: -item[1]))


# ── the whole


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(arguments.device)
    clips = decoded(arguments.clips, arguments.length, arguments.size)
    method = make_method(arguments, device)
    run(method, clips, min(arguments.pairs, WARM), None, threads=0)
    whole = run(method, clips, arguments.pairs, arguments.stored, arguments.threads)
    flow_only = run(method, clips, arguments.pairs, None, threads=0)
    bandwidth = copy_bandwidth(device)
    profiled, seconds = breakdown(method, clips, min(arguments.pairs, PROFILED), device)
    results: dict[str, Any] = {
        "machine": machine(device),
        "settings": {k: str(v) for k, v in vars(arguments).items() if k != "out"},
        "frames to bytes": whole.figures(),
        "frames to flow": flow_only.figures(),
        "seconds": seconds,
        "roofline": {
            "copy GB/s": bandwidth / 1e9,
            "bytes/px × iteration": BYTES,
            "share, frames to bytes": BYTES * whole.work / whole.seconds / bandwidth,
        },
        "one CPU core, pairs/s": on_one_core(clips, arguments.preset, arguments.core_pairs),
    }
    if "step" in seconds:
        rate = profiled.work / seconds["step"]
        results["roofline"]["step alone, Gpx × iterations/s"] = rate / 1e9
        results["roofline"]["share, step alone"] = rate * BYTES / bandwidth
    results["times one core"] = {
        name: results["frames to bytes"]["pairs/s"] / rate
        for name, rate in results["one CPU core, pairs/s"].items()
    }
    return results


def make_method(arguments: argparse.Namespace, device: torch.device) -> Any:
    """Returns the kernels, or plain PyTorch where they cannot run."""
    parameters = Parameters.of(TVL1_PRESETS[arguments.preset])
    if arguments.plain or (device.type != "cuda" and not os.environ.get("TRITON_INTERPRET")):
        return TorchTVL1(parameters, device)
    from vidssl.optical_flow.tvl1.scheduler import TritonTVL1

    options = {"iterations": arguments.block} if arguments.block else {}
    return TritonTVL1(parameters, device, arguments.in_flight, options)


def machine(device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cv2": cv2.__version__,
        "cores": len(os.sched_getaffinity(0)),
    }


def markdown(results: dict[str, Any]) -> str:
    """Returns the results as tables."""
    lines = [", ".join(f"{name} {value}" for name, value in results["machine"].items()), ""]
    lines += ["| | | |", "|---|---|---|"]
    parts = {part: results[part] for part in ("frames to bytes", "frames to flow", "roofline")}
    parts |= {part: results[part] for part in ("one CPU core, pairs/s", "times one core")}
    for part, figures in parts.items():
        lines += [f"| {part} | {name} | {value:,.4g} |" for name, value in figures.items()]
    seconds = results["seconds"]
    lines += ["", "| where the device's time goes | % |", "|---|---|"]
    for name, took in list(seconds.items())[:12]:
        lines.append(f"| {name} | {100 * took / sum(seconds.values()):.1f} |")
    return "\n".join([*lines, ""])


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", type=size, default=(340, 256), help="WIDTHxHEIGHT")
    parser.add_argument("--preset", choices=tuple(TVL1_PRESETS), default="published")
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--in-flight", type=int, help="pairs; default: as extract-flow has them")
    parser.add_argument("--block", type=int, help="iterations of a block; default: likewise")
    parser.add_argument("--plain", action="store_true", help="plain PyTorch instead of kernels")
    parser.add_argument("--clips", type=int, default=24, help="different ones")
    parser.add_argument("--length", type=int, default=17, help="frames of each clip")
    parser.add_argument("--stored", type=int, default=128, help="short side that is encoded")
    parser.add_argument("--core-pairs", type=int, default=4, help="for the rate of a CPU core")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = measure(arguments)
    (arguments.out / "tvl1.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "tvl1.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
