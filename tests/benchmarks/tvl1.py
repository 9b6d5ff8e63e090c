"""Measures how TV-L1 in PyTorch agrees with OpenCV's on real clips, and what presets cost.

    PYTHONPATH=tests python tests/benchmarks/tvl1.py VIDEOS [--pairs 60]

One pair of frames of every so many clips, at 240 px. The reference is OpenCV's DualTVL1 with its
defaults, which CoCLR and ViCC used; the last row is OpenCV against itself when its input is changed
by a thousandth of a grey level, which no reimplementation can be nearer than. Pairs whose true
motion is known are those of the tests. One thread, process time. Prints the Markdown table of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from tvl1_flow import agreement, end_point_error, stored_pairs

from vidssl.dataset.decoding import decode, duration, frame_rate
from vidssl.dataset.video import find_videos
from vidssl.optical_flow.algorithms import TVL1_PRESETS, Estimate, get_flow_method
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.solver import solve
from vidssl.optical_flow.working_size import working_frame
from vidssl.stages.extract_flow import WORKING_SIZE

NOISE = 0.001  # grey levels
STILL = 0.05  # pixels: a mean below is a frame shown twice, or nearly so
REFERENCE = "tvl1-opencv published"


@dataclass
class Row:
    """What one method did on pair after pair.

    Attributes:
        epe, close, bytes: agreement with the reference on real pairs, each.
        seconds: process time of each real pair.
        work: pixels times iterations of each real pair, in millions.
        motion: mean length of the flow of each real pair, in pixels.
        truth: distance in pixels from the true flow of each made-up pair.
    """

    epe: list[float] = field(default_factory=list)
    close: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)


def methods() -> dict[str, Callable[[], Estimate]]:
    """Returns what is compared; each is started anew for each pair, as for each video."""
    named = [(name, preset) for name in ("tvl1", "tvl1-opencv") for preset in TVL1_PRESETS]
    named += [("dis", "medium"), ("farneback", "default")]
    return {f"{name} {preset}": get_flow_method(name, preset).start for name, preset in named}


def real_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns two consecutive frames from a clip's middle, grey at the working size."""
    middle = int(duration(path) * frame_rate(path) / 2)
    frames = islice(decode(path), max(middle - 1, 0), None)
    before, after = (working_frame(frame, WORKING_SIZE) for frame in islice(frames, 2))
    return before, after


def disturbed(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns a picture with a little noise, as OpenCV takes floats: 0 to 1."""
    noise = draw.normal(0, NOISE, picture.shape)
    return ((picture + noise) / 255).astype(np.float32)


def measure_real(before: np.ndarray, after: np.ndarray, rows: dict[str, Row], seed: int) -> None:
    """Runs every method on one real pair."""
    flows = {}
    for name, start in methods().items():
        estimate = start()
        begin = time.process_time()
        flows[name] = estimate(before, after)
        rows[name].seconds.append(time.process_time() - begin)
    draw = np.random.default_rng(seed)
    noisy = get_flow_method("tvl1-opencv").start()
    flows["noise"] = noisy(disturbed(before, draw), disturbed(after, draw))
    for name, flow in flows.items():
        found = agreement(flow, flows[REFERENCE])
        rows[name].motion.append(float(np.linalg.norm(flow, axis=-1).mean()))
        rows[name].epe.append(found.epe)
        rows[name].close.append(found.close)
        rows[name].bytes.append(found.bytes)
    pictures = torch.from_numpy(np.stack([before, after]))
    for preset, params in TVL1_PRESETS.items():
        done = solve(pictures[:1], pictures[1:], Parameters.of(params))
        rows[f"tvl1 {preset}"].work.append(float(done.work_B[0]) / 1e6)


def measure_truth(rows: dict[str, Row]) -> None:
    """Runs every method on the made-up pairs."""
    for pair in stored_pairs():
        for name, start in methods().items():
            flow = start()(pair.before, pair.after)
            rows[name].truth.append(float(end_point_error(flow, pair.truth).mean()))


def table(rows: dict[str, Row]) -> list[str]:
    lines = [
        "| method, preset | px from OpenCV: mean (median) | < 0.1 px % | bytes within ±1 % "
        "| px from the truth | Mpx × iterations | ms/pair: mean (median) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        shown = "OpenCV, input disturbed" if name == "noise" else f"`{name}`"
        cells = [
            shown,
            f"{np.mean(row.epe):.4f} ({np.median(row.epe):.4f})",
            f"{100 * np.mean(row.close):.2f}",
            f"{100 * np.mean(row.bytes):.2f}",
            f"{np.mean(row.truth):.3f}" if row.truth else "",
            f"{np.mean(row.work):.1f}" if row.work else "",
            f"{1e3 * np.mean(row.seconds):.0f} ({1e3 * np.median(row.seconds):.0f})"
            if row.seconds
            else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    arguments = parser.parse_args(words)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows: dict[str, Row] = defaultdict(Row)
    found = find_videos(arguments.videos)
    sources = found[:: max(1, len(found) // arguments.pairs)][: arguments.pairs]
    for number, source in enumerate(sources):
        measure_real(*real_pair(source.path), rows, number)
        print(f"{number + 1} of {len(sources)} pairs", end="\r", file=sys.stderr)
    measure_truth(rows)
    motion = np.mean([np.linalg.norm(pair.truth, axis=-1).mean() for pair in stored_pairs()])
    print(
        f"{len(sources)} real pairs; {len(stored_pairs())} made up, true motion {motion:.2f} px\n"
    )
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
