"""Measures how fast and how good the codec's motion vectors are as flow: docs/benchmarks.md.

    PYTHONPATH=tests/support python tests/benchmarks/motion_vectors.py VIDEOS [--clips 40]
        [--recall-every 8]

VIDEOS is a folder with splits.csv (path,label,...,split columns). Each row is what a worker of
`vidssl extract-flow` does with a video, in process time, on every clip in turn: other work on the
machine then slows all rows alike, and their ratios hold. Flows are compared as they are stored,
with DIS medium at 240. R@1 is that of flow_storage.py, on all clips, every so many pairs. Made-up
film, whose motion is known, is encoded by libx264 with its defaults: a camera that moves, and a
disc that moves otherwise before it.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from flow_scenes import NOISE, texture
from flow_storage import histogram, recall
from video_files import write_video

from vidssl.dataset.decoding import decode, decode_vectors
from vidssl.dataset.video import Source, find_videos
from vidssl.extraction.video_flow import extract_video_flow
from vidssl.optical_flow.algorithms import get_flow_method
from vidssl.optical_flow.working_size import in_pixels_of, working_frame
from vidssl.stages.extract_flow import WORKING_SIZE, ExtractFlow, choose_method, flow_params
from vidssl.views.flow import read_pixels

# (method, preset, working size); the first is what the others are compared with.
ROWS = (
    ("dis", "medium", 240),
    ("dis", "fast", 171),
    ("dis", "ultrafast", 171),
    ("motion-vectors", "default", 240),
)
MOVING = 1.0  # pixels of 240: below, a direction means little


class Tally:
    """What is added up over the clips, by row."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.frames: dict[str, int] = defaultdict(int)
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.cosines: dict[str, list[float]] = defaultdict(list)
        self.motion: dict[str, list[float]] = defaultdict(list)


def name_of(row: tuple[str, str, int]) -> str:
    return f"`{row[0]}` {row[1]} at {row[2]}"


def params_of(path: Path, row: tuple[str, str, int]) -> dict[str, Any]:
    config = ExtractFlow(path, method=row[0], preset=row[1], size=row[2], device="cpu")
    return flow_params(config, choose_method(config)[0])


def pixels(blobs: list[bytes], params: Mapping[str, Any]) -> np.ndarray:
    """Returns stored flow in pixels of 240: float32 [T, h, w, 2]."""
    flow = np.stack([read_pixels(blob, params["codec"], params["bound"]) for blob in blobs])
    return flow * np.float32(WORKING_SIZE / params["working_size"])


def measure_clip(tally: Tally, source: Source) -> None:
    """Runs every row on one clip."""
    count = sum(1 for _ in decode(source.path))  # also warms the file's cache
    for name, read in (("decode", decode), ("decode, vectors only", decode_vectors)):
        begin = time.process_time()
        for _ in read(source.path):
            pass
        tally.seconds[name] += time.process_time() - begin
        tally.frames[name] += count
    reference = None
    for row in ROWS:
        name, params = name_of(row), params_of(source.path, row)
        begin = time.process_time()
        blobs = extract_video_flow(source, params).blobs["flow"]
        tally.seconds[name] += time.process_time() - begin
        tally.frames[name] += count
        flow = pixels(list(blobs), params)
        reference = flow if reference is None else reference
        compare(tally, name, flow, reference)


def compare(tally: Tally, name: str, flow: np.ndarray, reference: np.ndarray) -> None:
    lengths = [np.linalg.norm(f, axis=-1) for f in (flow, reference)]
    moving = lengths[1] > MOVING
    tally.motion[name].append(float(lengths[0].mean()))
    tally.errors[name].append(float(np.linalg.norm(flow - reference, axis=-1).mean()))
    if moving.any():
        cosine = (flow * reference).sum(-1) / np.maximum(lengths[0] * lengths[1], 1e-6)
        tally.cosines[name].append(float(cosine[moving].mean()))


def histograms(path: Path, every: int) -> dict[str, np.ndarray]:
    """Returns the histogram of each row's flow, unquantised, on every so many pairs of a clip."""
    found: dict[str, Any] = defaultdict(float)
    frames = list(decode(path))
    for method, preset, size in ROWS:
        chosen = get_flow_method(method, preset)
        if chosen.read_vectors is not None:
            flows = islice(
                chosen.read_vectors().flows(decode_vectors(path), size, 128), 0, None, every
            )
        else:
            assert chosen.start is not None
            estimate = chosen.start()
            pairs = islice(pairwise(working_frame(f, size) for f in frames), 0, None, every)
            flows = (in_pixels_of(estimate(*pair), size) for pair in pairs)
        for flow in flows:
            found[name_of((method, preset, size))] += histogram(flow, size)
    return dict(found)


def recalls(videos: Path, every: int) -> dict[str, str]:
    """Returns R@1 of each row on all clips, by the splits of splits.csv."""
    rows = list(csv.DictReader((videos / "splits.csv").open()))
    labels = np.array([row["label"] for row in rows])
    parts = [np.array([r[c] for r in rows]) for c in rows[0] if c.startswith("split")]
    clips = [histograms(videos / row["path"], every) for row in rows]
    shown = {}
    for name in clips[0]:
        features = np.stack([clip[name] for clip in clips])
        each = [recall(features, labels, part) for part in parts]
        shown[name] = f"{np.mean(each):.1f} ({', '.join(f'{r:.1f}' for r in each)})"
    return shown


# ── made-up film

GROUND, DISC = (2.6, -1.2), (-2.0, 1.5)  # pixels a frame
LONG, HIGH, WIDE, RADIUS = 24, 240, 320, 45


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Returns frames, RGB uint8 [T, H, W, 3], and the flow from each to the next."""
    draw = np.random.default_rng(0)
    behind, before = (texture(draw, HIGH, WIDE) for _ in range(2))
    y, x = np.mgrid[:HIGH, :WIDE].astype(np.float64)
    frames, flows = [], []
    for t in range(LONG):
        picture = behind(x - GROUND[0] * t, y - GROUND[1] * t)
        disc = np.hypot(x - 200 - DISC[0] * t, y - 100 - DISC[1] * t) < RADIUS
        picture[disc] = before(x - DISC[0] * t, y - DISC[1] * t)[disc]
        picture += draw.normal(0, NOISE, picture.shape)
        frames.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
        flows.append(np.where(disc[..., None], DISC, GROUND))
    return np.stack(frames)[..., None].repeat(3, -1), np.stack(flows[:-1])


def measure_made_up() -> None:
    frames, truth = made_up()
    small = np.stack([cv2.resize(flow, (171, 128), interpolation=cv2.INTER_AREA) for flow in truth])
    print("\n| made-up film | px from the truth | cosine with the truth |\n|---|---|---|")
    for shown, options in (("without B-frames", {"bf": "0"}), ("with B-frames", {})):
        with tempfile.TemporaryDirectory() as folder:
            path = write_video(Path(folder) / "v.mp4", frames, options=options)
            for row in (ROWS[0], ROWS[-1]):
                tally, params = Tally(), params_of(path, row)
                blobs = extract_video_flow(find_videos(path)[0], params).blobs["flow"]
                compare(tally, "", pixels(list(blobs), params), small)
                error, cosine = tally.errors[""][0], tally.cosines[""][0]
                print(f"| {shown}, {name_of(row)} | {error:.2f} | {cosine:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--recall-every", type=int, default=0, help="pairs of frames; 0: no R@1")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    tally = Tally()
    for source in find_videos(options.videos)[: options.clips]:
        measure_clip(tally, source)
    shown = recalls(options.videos, options.recall_every) if options.recall_every else {}
    print(f"{options.clips} clips, {tally.frames['decode']} frames\n")
    print("| | frames/s per core | motion, px | px from DIS | cosine with DIS | R@1 |")
    print("|---|---|---|---|---|---|")
    for name in tally.seconds:
        cells = [f"{tally.frames[name] / tally.seconds[name]:.0f}"]
        for figures in (tally.motion, tally.errors, tally.cosines):
            cells.append(f"{np.mean(figures[name]):.2f}" if name in figures else "")
        print(f"| {name} | {' | '.join(cells)} | {shown.get(name, '')} |")
    measure_made_up()


if __name__ == "__main__":
    main()
