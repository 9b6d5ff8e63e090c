"""Measures which working size, bound and stored size keep the motion: docs/benchmarks.md.

    python tests/benchmarks/flow_storage.py VIDEOS [--every 4] [--processes 2] [--reference 40]

VIDEOS is a folder with splits.csv (path,label,...,split columns). Motion is judged by what it is
for: the nearest neighbour (test → train) of a histogram of optical flow, beside the share of
clipped pixels, the error of storage, bytes and time. Prints two Markdown tables.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from vidssl.dataset.decoding import decode
from vidssl.optical_flow import algorithms
from vidssl.views import get_view
from vidssl.views.flow import quantise, to_pixels
from vidssl.views.resize import short_side

WORKING = (240, 171, 128)  # short side on which flow is computed
# (working size, bound in its pixels, stored short side)
STORAGE = [
    *((240, bound, stored) for bound in (5, 10, 20, 40) for stored in (240, 128, 64)),
    *((128, bound, stored) for bound in (3, 5, 10, 20) for stored in (128, 64)),
]
CHOSEN = "dis medium"  # whose storage is measured
STILL = 0.0005  # of the short side (0.12 px of 240): less is no motion
ORIENTATIONS = 8
CELLS = 4  # by as many, so that where something moves counts as well


@dataclass
class Sums:
    """What is added up over the pairs of one clip, per row of a table."""

    histogram: np.ndarray | float = 0.0
    figures: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def histogram(flow: np.ndarray, short: float) -> np.ndarray:
    """Motion in each [cell, orientation], and what is still in each cell."""
    flow = cv2.resize(flow, (128, 96), interpolation=cv2.INTER_AREA) / np.float32(short)
    u, v = flow[..., 0], flow[..., 1]
    motion = np.hypot(u, v)
    turn = np.floor((np.arctan2(v, u) / (2 * np.pi) + 0.5) * ORIENTATIONS).astype(int)
    turn = np.where(motion < STILL, ORIENTATIONS, turn % ORIENTATIONS)
    y, x = (np.arange(n) * CELLS // n for n in flow.shape[:2])
    bins = (y[:, None] * CELLS + x) * (ORIENTATIONS + 1) + turn
    weight = np.maximum(motion, STILL)
    return np.bincount(bins.ravel(), weight.ravel(), CELLS * CELLS * (ORIENTATIONS + 1))


def estimators() -> dict[str, algorithms.Estimate]:
    presets = {
        "dis ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "dis fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "dis medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }
    found = {name: _dis(cv2.DISOpticalFlow_create(preset)) for name, preset in presets.items()}
    finest = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finest.setFinestScale(0)  # the preset stops at half the resolution
    found["dis medium, finest scale 0"] = _dis(finest)
    return found | {"farneback": algorithms.get_flow_method("farneback").start()}


def _dis(dis: cv2.DISOpticalFlow) -> algorithms.Estimate:
    return lambda before, after: dis.calc(before, after, None)


def grey_pairs(path: Path, size: int, every: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    greys = []
    for frame in decode(path):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        working = short_side(grey.shape[1], grey.shape[0], size)
        greys.append(cv2.resize(grey, working, interpolation=cv2.INTER_AREA))
    for i in range(0, len(greys) - 1, every):
        yield greys[i], greys[i + 1]


def measure_clip(path: Path, every: int) -> dict[str, Sums]:
    """Runs every row of both tables on one clip."""
    cv2.setNumThreads(0)
    rows: dict[str, Sums] = defaultdict(Sums)
    for size in WORKING:
        methods = estimators()  # anew: OpenCV's DIS remembers the first size it saw
        for before, after in grey_pairs(path, size, every):
            for name, estimate in methods.items():
                start = time.process_time()
                flow = estimate(before, after)
                row = rows[f"{name}|{size}"]
                row.figures["seconds"] += time.process_time() - start
                row.figures["pairs"] += 1
                row.histogram += histogram(flow, size)
                if name == CHOSEN:
                    measure_storage(flow, size, rows)
    return dict(rows)


def measure_storage(flow: np.ndarray, size: int, rows: dict[str, Sums]) -> None:
    view = get_view("flow")
    for working, bound, stored in STORAGE:
        if working != size:
            continue
        target = short_side(flow.shape[1], flow.shape[0], stored)
        small = cv2.resize(flow, target, interpolation=cv2.INTER_AREA)
        eight = quantise(small, bound)
        blob = view.encode(eight)
        back = to_pixels(view.decode(blob), bound)
        row = rows[f"{working}|{bound}|{stored}"]
        motion = np.hypot(small[..., 0], small[..., 1])
        row.figures["pairs"] += 1
        row.figures["bytes"] += len(blob)
        row.figures["clipped"] += np.mean(np.abs(small).max(-1) > bound)
        row.figures["rounding"] += np.mean(
            np.hypot(*np.moveaxis(to_pixels(eight, bound) - small, -1, 0))
        )
        row.figures["error"] += np.mean(np.hypot(*np.moveaxis(back - small, -1, 0)))
        row.figures["motion"] += np.mean(motion)
        row.figures["still"] += np.mean(motion < bound / 254)
        row.histogram += histogram(back, size)


def reference_errors(paths: list[Path]) -> dict[str, float]:
    """Mean end-point error against TV-L1 at 240, in its pixels, one pair per clip."""
    cv2.setNumThreads(0)
    tvl1 = algorithms.get_flow_method("tvl1-opencv").start()
    errors: dict[str, list[float]] = defaultdict(list)
    for path in paths:
        pairs = {size: next(iter(grey_pairs(path, size, 1))) for size in WORKING}
        start = time.process_time()
        truth = tvl1(*pairs[240])
        errors["tvl1 seconds"].append(time.process_time() - start)
        errors["zero"].append(float(np.mean(np.hypot(truth[..., 0], truth[..., 1]))))
        for size in WORKING:
            for name, estimate in estimators().items():
                flow = estimate(*pairs[size]) * (240 / size)
                flow = cv2.resize(flow, truth.shape[1::-1], interpolation=cv2.INTER_LINEAR) - truth
                errors[f"{name}|{size}"].append(
                    float(np.mean(np.hypot(flow[..., 0], flow[..., 1])))
                )
    return {name: float(np.mean(values)) for name, values in errors.items()}


def recall(features: np.ndarray, labels: np.ndarray, part: np.ndarray) -> float:
    """R@1 in % of test → train by cosine of the square roots of the histograms."""
    x = np.sqrt(features.reshape(len(features), -1))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    test, train = part == "test", part == "train"
    nearest = (x[test] @ x[train].T).argmax(1)
    return 100 * float(np.mean(labels[train][nearest] == labels[test]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--every", type=int, default=4, help="use every n-th pair of frames")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--reference", type=int, default=40, help="clips compared with TV-L1")
    options = parser.parse_args()
    rows = list(csv.DictReader((options.videos / "splits.csv").open()))
    paths = [options.videos / row["path"] for row in rows]
    labels = np.array([row["label"] for row in rows])
    parts = [np.array([r[c] for r in rows]) for c in rows[0] if c.startswith("split")]
    with ProcessPoolExecutor(options.processes) as pool:
        truth = pool.submit(reference_errors, paths[:: max(1, len(paths) // options.reference)])
        clips = list(pool.map(partial(measure_clip, every=options.every), paths, chunksize=4))
        errors = truth.result()

    def figure(name: str, key: str) -> float:
        total = sum(clip[name].figures[key] for clip in clips)
        return float(total / sum(clip[name].figures["pairs"] for clip in clips))

    def recalls(name: str) -> str:
        features = np.stack([clip[name].histogram for clip in clips])
        each = [recall(features, labels, part) for part in parts]
        return f"{np.mean(each):.1f} ({', '.join(f'{r:.1f}' for r in each)})"

    print(
        f"TV-L1 at 240: {errors['tvl1 seconds']:.2f} s/pair, mean motion {errors['zero']:.2f} px\n"
    )
    print("| algorithm | working size | ms/pair | px from TV-L1 | R@1, mean (each split) |")
    print("|---|---|---|---|---|")
    for name in estimators():
        for size in WORKING:
            row = f"{name}|{size}"
            ms = 1000 * figure(row, "seconds")
            print(f"| {name} | {size} | {ms:.1f} | {errors[row]:.2f} | {recalls(row)} |")
    print(
        "\n| working size | bound | stored | clipped % | still % | rounding / motion % | ", end=""
    )
    print("stored / motion % | bytes | R@1, mean (each split) |\n" + "|---" * 9 + "|")
    for working, bound, stored in STORAGE:
        row = f"{working}|{bound}|{stored}"
        motion = figure(row, "motion")
        shares = [100 * figure(row, key) for key in ("clipped", "still")]
        shares += [100 * figure(row, key) / motion for key in ("rounding", "error")]
        cells = " | ".join(f"{share:.2f}" for share in shares)
        size = figure(row, "bytes")
        print(f"| {working} | {bound} | {stored} | {cells} | {size:.0f} | {recalls(row)} |")


if __name__ == "__main__":
    main()
