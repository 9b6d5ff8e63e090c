"""Measures how many clips a core loads, beside bare decoding and beside the published code.

    python tests/benchmarks/loading.py [--published DIR] [--rounds 5] [--workers 2]

Two clips of 32 frames a sample, out of shards of rendered video; CoCLR reads of its frozen stream
the second alone. Every row is measured in process
time of one thread, one sample of each kind after the other in turn: other work on the machine then
slows all of them alike, and their ratios hold. The last table is in wall time, since sharing cores
is what it is about. DIR is a checkout of CoCLR's code; without it its column is unmeasured. Prints
the Markdown tables of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import published_code
import torch
from torch.utils.data import DataLoader, Dataset

from vidssl.augment import POLICIES, AugmentSpec
from vidssl.clips.batch import ClipSpec
from vidssl.clips.batch_maker import PendingBatch
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.gpu.crop_regions import cut_regions, make_clip
from vidssl.clips.gpu.gpu_batches import RegionBatchMaker
from vidssl.clips.loader import ClipLoader
from vidssl.clips.network_input import network_input
from vidssl.clips.sampler import ClipSampler
from vidssl.dataset.synthetic import FPS
from vidssl.dataset.synthetic_scene import MOTIONS, render_clip
from vidssl.shards import ShardReader, ShardWriter, VideoRecord
from vidssl.views import get_view
from vidssl.views.flow import quantise

SIZES = ((171, 128), (340, 256))  # width, height of stored frames
STREAMS: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # views, those of the last clip alone
    "1": (["rgb"], []),
    "2": (["rgb", "flow"], []),
    "2, as CoCLR reads them": (["rgb", "flow"], ["flow"]),
}
CLIP = ClipSpec(frames=32, size=128)
CLIPS = 2  # of a sample
LENGTH = 150  # frames of a video
CODECS = {"rgb": {"codec": "jpeg90"}, "flow": {"codec": "jpeg95"}}


# ── the set ──────────────────────────────────────────────────────────────────────────────────


def write_shards(folder: Path, videos: int, width: int, height: int) -> TrainingVideos:
    """Packs rendered video and its flow at one size."""
    with ShardWriter(folder, CODECS) as writer:
        for number in range(videos):
            frames = render_clip(MOTIONS[number % len(MOTIONS)], number, LENGTH, (width, height))
            dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
            flow = [quantise(dis.calc(a, b, None), height / 12) for a, b in pairwise(grey)]
            blobs = {
                view: [get_view(view).encode(p, CODECS[view]["codec"]) for p in pictures]
                for view, pictures in (("rgb", list(frames)), ("flow", flow))
            }
            name = f"v{number:03d}"
            writer.add(VideoRecord(f"{name}#0", name, FPS, LENGTH, width, height), blobs)
        writer.finish()
    rows = np.arange(videos)
    return TrainingVideos(ShardReader(folder), rows, rows, rows)


# ── what is measured of one sample ───────────────────────────────────────────────────────────


@dataclass
class Sample:
    """One sample's work in all ways; every method does it once.

    Attributes:
        needed: per view the frames that its clips hold, each once.
    """

    videos: TrainingVideos
    views: Sequence[str]
    augment: AugmentSpec
    row: int
    transform: Callable[[list], list] | None
    last_only: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.sampler = ClipSampler(
            self.videos, self.views, CLIP, self.augment, CLIPS, last_only=self.last_only
        )
        self.into = {v: np.empty(self.sampler.shape(v), np.uint8) for v in self.views}
        self.input = {v: torch.empty(self._input_shape(v)) for v in self.views}
        drawn, frames = self.sampler.draw(0, self.row, self.row, for_copying=True)
        self.needed = {view: part.frame_index.needed for view, part in drawn.views.items()}
        read = self.videos.reader.read
        self.blobs = {v: read(v, self.row, self.needed[v]) for v in self.views}
        self.cut = {view: cut_regions(part, frames[view]) for view, part in drawn.views.items()}
        most = sum(r.pixels.numel() for of_view in self.cut.values() for r in of_view)
        self.pinned, self.used = torch.zeros(most, dtype=torch.uint8), 0

    def _input_shape(self, view: str) -> tuple[int, ...]:
        clips, time_, height, width, channels = self.sampler.shape(view)
        return clips, channels, time_, height, width

    def bare(self) -> None:
        """Decodes the same frames and does nothing else."""
        for blobs in self.blobs.values():
            for blob in blobs:
                cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)

    def regions(self) -> None:
        """What a core does for a GPU: uint8 regions, ready to be sent."""
        drawn, frames = self.sampler.draw(0, self.row, self.row, for_copying=True)
        self.used = 0
        for view, part in drawn.views.items():
            cut_regions(part, frames[view], self._memory)

    def _memory(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Returns memory that was used before, as torch does with pinned memory."""
        begin = self.used
        self.used += math.prod(shape)
        return self.pinned[begin : self.used].view(shape)

    def on_device(self) -> None:
        """What is left to the device, here done by a CPU: resizing and mirroring of regions."""
        for view in self.views:
            for region in self.cut[view]:
                make_clip(region, self.sampler, view)

    def pixels(self) -> None:
        """What a core would do for a GPU that gets clips: regions and their resizing."""
        self.sampler.sample(0, self.row, self.row, self.into)

    def network_input(self) -> None:
        """What a core does where there is no GPU: floats, coloured and standardised."""
        sample = self.sampler.sample(0, self.row, self.row, self.into)
        for view, pixels in sample.clips.items():
            draws = sample.colour.get(view)
            made = network_input(torch.from_numpy(pixels), view, "native", draws, self.augment)
            self.input[view].copy_(made)

    def published(self) -> None:
        """What the published loader's worker does with two clips of as many frames.

        Each stream by itself: the published two-stream set does the work of one stream twice.
        """
        assert self.transform is not None
        index = np.resize(self.needed["rgb"][: 2 * CLIP.frames], 2 * CLIP.frames)
        for _ in self.views:
            blobs = self.videos.reader.read("rgb", self.row, index)
            torch.stack(self.transform(published_code.decode(blobs)), 1)


def clips_per_second(samples: Sequence[Sample], work: Sequence[str], rounds: int) -> list[float]:
    """Returns for each kind of work the clips a core does in a second: the median over rounds."""
    seconds = np.zeros((rounds, len(work)))
    for turn in range(-1, rounds):  # the first is for warming up
        for sample in samples:
            for place, name in enumerate(work):
                begin = time.thread_time()
                getattr(sample, name)()
                if turn >= 0:
                    seconds[turn, place] += time.thread_time() - begin
    return list(CLIPS * len(samples) / np.median(seconds, axis=0))


# ── threads and processes ────────────────────────────────────────────────────────────────────


class Samples(Dataset):
    """The same samples for torch's DataLoader, whose workers are processes."""

    def __init__(self, sampler: ClipSampler, count: int) -> None:
        self.sampler, self.count = sampler, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> list[torch.Tensor]:
        cv2.setNumThreads(0)
        row = place % len(self.sampler.videos)
        drawn, frames = self.sampler.draw(0, place, row, for_copying=True)
        return [
            region.pixels
            for view, part in drawn.views.items()
            for region in cut_regions(part, frames[view])
        ]


class Cut(RegionBatchMaker):
    """Batches of which nothing more is made than what a GPU is sent."""

    def finish(self, pending: PendingBatch) -> list[object]:  # type: ignore[override]
        return [sample.result() for sample in pending.samples]


def by_processes(videos: TrainingVideos, workers: int, batch: int, steps: int) -> float:
    sampler = ClipSampler(videos, ["rgb"], CLIP, POLICIES["truthful"], CLIPS)
    loader = DataLoader(
        Samples(sampler, (steps + 2) * batch),
        batch,
        num_workers=workers,
        collate_fn=list,  # regions differ in size
        multiprocessing_context="spawn",
    )
    return _wall(iter(loader), batch, steps)


def by_threads(videos: TrainingVideos, workers: int, batch: int, steps: int) -> float:
    loader = ClipLoader(videos, ["rgb"], CLIP, POLICIES["truthful"], batch, threads=workers)
    loader.maker = Cut(loader.sampler, loader.device)
    return _wall(loader.steps(0, steps + 2), batch, steps)


def _wall(batches, batch: int, steps: int) -> float:
    next(batches)
    begin = time.monotonic()
    for _ in range(steps):
        next(batches)
    seconds = time.monotonic() - begin
    for _ in batches:  # workers that are at work when they are ended complain
        pass
    return CLIPS * batch * steps / seconds


# ── the tables ───────────────────────────────────────────────────────────────────────────────


def per_core(sets: dict[tuple[int, int], TrainingVideos], arguments: argparse.Namespace) -> None:
    transform = None
    if arguments.published is not None:
        transform = published_code.augmentation(arguments.published, CLIP.frames, CLIP.size)
    work = ["bare", "regions", "on_device", "pixels", "network_input"]
    work += ["published"] if transform is not None else []
    print(
        "| frames | streams | augmentation | bare decoding | regions for a GPU | of bare | "
        "the device's part, by a core | clips | network input on a CPU | published | "
        "regions : published |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (width, height), videos in sets.items():
        for streams, (views, last_only) in STREAMS.items():
            for policy in ("truthful", "coclr"):
                samples = [
                    Sample(videos, views, POLICIES[policy], row, transform, last_only)
                    for row in range(arguments.samples)
                ]
                found = clips_per_second(samples, work, arguments.rounds)
                bare, regions, device, pixels, network = found[:5]
                beside = ("unmeasured", "–")
                if transform is not None:
                    beside = (f"{found[5]:.1f}", f"{regions / found[5]:.1f}")
                print(
                    f"| {width}×{height} | {streams} | {policy} | {bare:.1f} | {regions:.1f} | "
                    f"{regions / bare:.0%} | {device:.1f} | {pixels:.1f} | {network:.1f} | "
                    f"{beside[0]} | {beside[1]} |",
                    flush=True,
                )


def shared(sets: dict[tuple[int, int], TrainingVideos], arguments: argparse.Namespace) -> None:
    print("\n| frames | workers | threads | processes | threads : processes |")
    print("|---|---|---|---|---|")
    for (width, height), videos in sets.items():
        for workers in sorted({1, arguments.workers}):
            pairs = [
                [by(videos, workers, 8, 4) for by in (by_threads, by_processes)]
                for _ in range(arguments.rounds)
            ]
            threads, processes = np.median(pairs, axis=0)
            ratio = np.median([a / b for a, b in pairs])
            print(
                f"| {width}×{height} | {workers} | {threads:.1f} | {processes:.1f} | {ratio:.2f} |",
                flush=True,
            )


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--published", type=Path, help="a checkout of CoCLR's code")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-core-only", action="store_true", help="leave the last table out")
    arguments = parser.parse_args(words)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        sets = {
            size: write_shards(Path(scratch) / f"{size[0]}", max(arguments.samples, 8), *size)
            for size in SIZES
        }
        per_core(sets, arguments)
        if not arguments.per_core_only:
            shared(sets, arguments)


if __name__ == "__main__":
    main()
