"""Measures how fast a core extracts and packs, and what follows for UCF101 and K400.

    python tests/benchmarks/throughput.py VIDEOS [--clips 60] [--tvl1-every 40]

Every step is measured on every clip, one after the other in one thread, in process time: other work
on the machine then slows all of them alike, and their ratios hold. Prints the Markdown tables of
docs/benchmarks.md and docs/benchmarks_on_paper.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from vidssl.base.progress import SILENT
from vidssl.dataset.decoding import decode, duration
from vidssl.dataset.video import Source, find_videos, fingerprint
from vidssl.extraction.part_videos import PartVideos
from vidssl.extraction.partition import Part, divide
from vidssl.extraction.process_pool import VideoResult
from vidssl.extraction.shard_job import ShardJob, run_shard_job, videos_digest
from vidssl.extraction.video_flow import extract_video_flow
from vidssl.extraction.video_frames import pack_video
from vidssl.optical_flow.algorithms import get_flow_method
from vidssl.shards import VideoRecord
from vidssl.stages.extract_flow import WORKING_SIZE, ExtractFlow, choose_method, flow_params
from vidssl.stages.pack import RGB_SIZE
from vidssl.views import get_view
from vidssl.views.flow import quantise
from vidssl.views.resize import short_side
from vidssl.workspace.workspace import Workspace

RGB_PARAMS = {"codec": "jpeg90", "stored_size": RGB_SIZE}
DATASETS = {"UCF101": (13_320, 2.5e6), "K400": (240_000, 65e6)}  # videos, frames
# Steps whose sum is no stage; the rest are stages as `vidssl` runs them.
STEPS = (
    "decode",
    "grey, scale to 240",
    "DIS medium at 240",
    "Farneback at 240",
    "TV-L1 (OpenCV) at 240",
    "quantise, scale, JPEG 95 of flow",
    "scale, JPEG 90 of RGB",
)
STAGES = (
    "extract-flow",
    "extract-flow --method farneback",
    "extract-flow --method tvl1-opencv",
    "pack",
)


class Clock:
    """Adds up seconds and frames of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.frames: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str, frames: int) -> Iterator[None]:
        """Counts what is done meanwhile to a step, on so many frames."""
        begin = time.process_time()
        yield
        self.seconds[name] += time.process_time() - begin
        self.frames[name] += frames

    def rate(self, name: str) -> float:
        """Returns frames per second."""
        return self.frames[name] / self.seconds[name]

    def frame_bytes(self, name: str) -> float:
        """Returns stored bytes per frame."""
        return self.bytes[name] / self.frames[name]


def measure_clip(clock: Clock, source: Source, tvl1_every: int) -> None:
    """Runs every step, and then every stage but TV-L1's, on one clip."""
    count = sum(1 for _ in decode(source.path))  # also warms the file's cache
    with clock.step("decode", count):
        frames = list(decode(source.path))
    greys = []
    with clock.step("grey, scale to 240", count):
        for frame in frames:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            working = short_side(grey.shape[1], grey.shape[0], WORKING_SIZE)
            if working != grey.shape[1::-1]:
                grey = cv2.resize(grey, working, interpolation=cv2.INTER_AREA)
            greys.append(grey)
    pairs = list(pairwise(greys))
    for name, method in (("DIS medium", "dis"), ("Farneback", "farneback")):
        estimate = get_flow_method(method).start()
        with clock.step(f"{name} at 240", len(pairs)):
            flows = [estimate(*pair) for pair in pairs]
    estimate = get_flow_method("tvl1-opencv").start()
    some = pairs[::tvl1_every]
    with clock.step("TV-L1 (OpenCV) at 240", len(some)):
        for pair in some:
            estimate(*pair)
    measure_encoding(clock, frames, flows)
    for method in ("dis", "farneback"):
        name = "extract-flow" + (f" --method {method}" if method != "dis" else "")
        config = ExtractFlow(source.path, method=method, device="cpu")
        params = flow_params(config, choose_method(config)[0])
        with clock.step(name, count):
            result = extract_video_flow(source, params)
        clock.bytes[name] += sum(map(len, result.blobs["flow"]))
    with clock.step("pack", count):
        result = pack_video(source, RGB_PARAMS)
    clock.bytes["pack"] += sum(map(len, result.blobs["rgb"]))


def measure_encoding(
    clock: Clock, frames: Sequence[np.ndarray], flows: Sequence[np.ndarray]
) -> None:
    rgb, view = get_view("rgb"), get_view("flow")
    with clock.step("quantise, scale, JPEG 95 of flow", len(flows)):
        for flow in flows:
            stored = short_side(flow.shape[1], flow.shape[0], 128)
            small = cv2.resize(flow, stored, interpolation=cv2.INTER_AREA)
            view.encode(quantise(small, 20), "jpeg95")
    with clock.step("scale, JPEG 90 of RGB", len(frames)):
        for frame in frames:
            stored = short_side(frame.shape[1], frame.shape[0], RGB_SIZE)
            rgb.encode(cv2.resize(frame, stored, interpolation=cv2.INTER_AREA), "jpeg90")


# ── what a division costs


def measure_manifest(sources: Sequence[Source]) -> float:
    """Returns milliseconds of process time to name a video and to tell its length."""
    begin = time.process_time()
    for source in sources:
        fingerprint(source.path)
        duration(source.path)
    return 1000 * (time.process_time() - begin) / len(sources)


def measure_division(videos: int, parts: int) -> tuple[float, float]:
    """Returns seconds to divide so many videos, and the longest part over the mean."""
    seconds = np.random.default_rng(0).lognormal(2, 0.7, videos)
    begin = time.process_time()
    owners = np.array(divide(seconds.tolist(), parts))
    took = time.process_time() - begin
    loads = np.bincount(owners, seconds)
    return took, loads.max() / loads.mean()


def measure_gathering(parts: int, videos: int, shard_videos: int) -> tuple[float, int]:
    """Returns how much longer the last part takes, which gathers and publishes; and the shards.

    The videos have one tiny frame, since what is gathered is not read.
    """
    sources = [Source(f"v{n:07d}#0", Path(f"v{n}"), f"v{n}", "0") for n in range(videos)]
    params = {"flow": {"codec": "png", "bound": 1.0}}
    owners = divide([1.0] * videos, parts)
    recipe = {"videos": videos_digest(sources)}
    job = ShardJob("made up", params, made_up, shard_bytes=64 * shard_videos)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        for index in range(parts):
            ids = {s.id for s, owner in zip(sources, owners, strict=True) if owner == index}
            share = PartVideos(Part(index, parts), frozenset(ids), 0.0)
            begin = time.process_time()
            with workspace.open_run("flow", "main", recipe, {}, shared=True) as run:
                result = run_shard_job(run, job, sources, SILENT, share)
            took.append(time.process_time() - begin)
    assert result.artifact is not None
    return took[-1] - float(np.median(took)), len(result.artifact.payload) - 1


def made_up(sources: Sequence[Source]) -> Iterator[tuple[Source, VideoResult]]:
    for source in sources:
        record = VideoRecord(source.id, source.name, 25.0, 2, 8, 8)
        yield source, VideoResult(record, {"flow": [b"x" * 64]})


# ── tables


def number(value: float) -> str:
    """Returns three digits that count, without an exponent."""
    places = 2 - int(np.floor(np.log10(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def step_table(clock: Clock) -> None:
    print("| step | frames/s per core | ms/frame | times decoding |")
    print("|---|---|---|---|")
    for name in (*STEPS, *(stage for stage in STAGES if stage in clock.seconds)):
        shown = f"`vidssl {name}`" if name in STAGES else name
        rate, relative = clock.rate(name), clock.rate("decode") / clock.rate(name)
        print(f"| {shown} | {number(rate)} | {number(1000 / rate)} | {number(relative)} |")


def data_table(clock: Clock) -> None:
    print("| data set | stage | videos/s per core | core hours | on 64 cores | bytes |")
    print("|---|---|---|---|---|---|")
    for dataset, (videos, frames) in DATASETS.items():
        for name in STAGES:
            rate = clock.rate(name) * videos / frames
            hours = frames / clock.rate(name) / 3600
            size = frames * clock.frame_bytes(name) / 1e9
            print(
                f"| {dataset} | `vidssl {name}` | {number(rate)} | {number(hours)} "
                f"| {number(hours / 64)} h | {number(size)} GB |"
            )


def add_tvl1_stage(clock: Clock) -> None:
    """TV-L1 takes too long to be run on whole clips: the stage with its flow in place of DIS's."""
    name = "extract-flow --method tvl1-opencv"
    per_frame = 1 / clock.rate("extract-flow") - 1 / clock.rate("DIS medium at 240")
    clock.frames[name] = 1
    clock.seconds[name] = per_frame + 1 / clock.rate("TV-L1 (OpenCV) at 240")
    clock.bytes[name] = clock.frame_bytes("extract-flow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--tvl1-every", type=int, default=40, help="pairs of frames")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    found = find_videos(arguments.videos)
    sources = found[:: max(1, len(found) // arguments.clips)][: arguments.clips]
    clock = Clock()
    for source in sources:
        measure_clip(clock, source, arguments.tvl1_every)
    add_tvl1_stage(clock)
    print(f"{len(sources)} clips, {clock.frames['decode']:.0f} frames\n")
    step_table(clock)
    print()
    data_table(clock)
    print(f"\nmanifest: {measure_manifest(sources):.2f} ms per video")
    took, longest = measure_division(240_000, 100)
    print(f"240,000 videos in 100 parts: {took:.2f} s, the longest part {longest:.5f} of the mean")
    seconds, shards = measure_gathering(parts=20, videos=2_000, shard_videos=10)
    print(f"gathering {shards} shards of 20 parts: {seconds:.2f} CPU seconds")


if __name__ == "__main__":
    main()
