"""What grows with the number of videos: memory of loading, and time until the first batch.

    python tests/benchmarks/scale.py                         memory: 1,000 and 10,000 videos
    python tests/benchmarks/scale.py --start 240000          start of training, as of Kinetics-400

Synthetic shards of small frames, made in a temporary folder and deleted afterwards; videos are
copies of a few. *Grown*: by how much the process was larger at the end of the epoch's steps than
after the first ones. *Start*: from opening the workspace to the plan of `vidssl pretrain`, and to
the first batch, in CPU time, step by step.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import torch

from vidssl.base.files import file_digest
from vidssl.clips.loader import ClipLoader
from vidssl.dataset.annotations import ANNOTATIONS_FILE, write_annotations
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.methods import METHODS
from vidssl.shards import ShardWriter, VideoRecord
from vidssl.stages import pretrain
from vidssl.training.encoders import new_encoder
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

WIDTH, HEIGHT, KINDS = 32, 24, 16  # of a stored video; how many differ
CLASSES = 400
SETTINGS = (("frames", 4), ("size", 16), ("batch_size", 32), ("epochs", 1), ("queue", 64))


def blobs(seed: int, frames: int) -> list[bytes]:
    """Returns one video's frames."""
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 256, (frames, HEIGHT, WIDTH, 3), np.uint8)
    return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]


def make_workspace(folder: Path, videos: int, frames: int) -> Workspace:
    """Publishes a pack of so many small videos, with labels, groups and a split."""
    workspace = Workspace(folder)
    views = {"rgb": {"codec": "jpeg90", "stored_size": HEIGHT}}
    some = [blobs(seed, frames) for seed in range(KINDS)]
    names = [f"class{n % CLASSES:03d}/video{n:06d}.mp4" for n in range(videos)]
    ids = [f"{name}#{n:012x}" for n, name in enumerate(names)]
    recipe = {"stage": "pack", "views": views, "videos": f"{videos} synthetic"}
    with workspace.open_run("pack", "main", recipe, {}) as run:
        # What a kill would leave does not matter here.
        with patch("os.fsync"), ShardWriter(run.folder, views) as writer:
            for n, (video, name) in enumerate(zip(ids, names, strict=True)):
                record = VideoRecord(video, name, 25.0, frames, WIDTH, HEIGHT)
                writer.add(record, {"rgb": some[n % KINDS]})
            digest = writer.finish()
        shown = {"rgb": {"frames": videos * frames}}
        pack = run.publish(digest, {"videos": videos, "views": shown})
    annotate(workspace, pack, ids)
    return workspace


def annotate(workspace: Workspace, pack: Artifact, ids: Sequence[str]) -> None:
    rows = [
        {"id": video, "label": video.partition("/")[0], "group": video, "split1": "train"}
        for video in ids
    ]
    recipe = {"stage": "annotate", "labels": "synthetic"}
    with workspace.open_run("annotations", "main", recipe, {"pack": pack}) as run:
        write_annotations(run.folder, rows, ["split1"])
        run.publish(file_digest(run.folder / ANNOTATIONS_FILE), {"videos": len(ids)})


# ── memory ───────────────────────────────────────────────────────────────────────────────────


def resident() -> float:
    """Returns the memory this process holds, in MB, with freed memory given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory(videos: int, folder: Path) -> tuple[float, float, float, int]:
    """Returns MB: of the plan, grown while loading, grown while training; and steps of each."""
    workspace = make_workspace(folder, videos, 12)
    before = resident()
    plan = pretrain.plan_pretraining(workspace, options())
    planned = resident() - before
    loader = make_loader(plan)
    steps = loader.steps_per_epoch

    def run(begin: int, end: int) -> float:
        for _ in loader.steps(begin, end):
            pass
        return resident()

    first = run(0, 10)
    loaded = run(10, steps) - first
    method = plan.make_method()
    few = replace(plan.recipe.train, epochs=1)
    trained: list[float] = []

    def watched(begin: int, end: int) -> Iterator[object]:
        for n, batches in enumerate(loader.steps(begin, end)):
            if n in (min(10, steps - 2), steps - 1):
                trained.append(resident())
            yield batches

    batches = SimpleNamespace(steps_per_epoch=steps, steps=watched)
    out = folder / "run"
    out.mkdir()
    fit(method, batches, few, RuntimeConfig(torch.device("cpu"), save_every=1e9), out)
    return planned, loaded, trained[1] - trained[0], steps


def options() -> pretrain.PretrainOptions:
    return pretrain.PretrainOptions(recipe="cpu", settings=SETTINGS, device="cpu")


def make_loader(plan) -> ClipLoader:  # type: ignore[no-untyped-def]
    recipe = plan.recipe
    return ClipLoader(
        plan.data.videos, ("rgb",), recipe.clip, recipe.augment, recipe.train.batch_size, threads=1
    )


# ── start ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def timed(what: str, into: dict[str, tuple[float, float]]) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    into[what] = time.process_time() - cpu, time.perf_counter() - wall


def start(videos: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Returns seconds (of the CPU, of the clock) of each step until training has begun."""
    make_workspace(folder, videos, 2)
    took: dict[str, tuple[float, float]] = {}
    with timed("plan: index, labels, split", took):
        plan = pretrain.plan_pretraining(Workspace(folder), options())
    with timed("identity of the run", took):
        plan.identity()
    with timed("network", took):
        kind = METHODS[plan.recipe.method]
        kind.build(plan.recipe.config, {"rgb": new_encoder(plan.recipe, "rgb")}, 0)
    with timed("loader", took):
        loader = make_loader(plan)
    with timed("first batch", took):
        next(loader.steps(0, 1))
    with timed("first batch of a run resumed at its end", took):
        last = 300 * loader.steps_per_epoch - 1
        next(loader.steps(last, last + 1))
    return took


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--start", type=int, default=0, help="measure the start with so many")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    if arguments.start:
        print("| until training | s of CPU | s by the clock |\n|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            took = start(arguments.start, Path(folder))
        for what, (cpu, wall) in took.items():
            print(f"| {what} | {cpu:.2f} | {wall:.2f} |")
        cpu, wall = (sum(column) for column in zip(*took.values(), strict=True))
        print(f"| **all** | **{cpu:.2f}** | {wall:.2f} |")
        return
    print("| videos | steps | index MB | grown loading MB | grown training MB |")
    print("|---|---|---|---|---|")
    for videos in arguments.videos:
        with tempfile.TemporaryDirectory() as folder:
            planned, loaded, trained, steps = memory(videos, Path(folder))
        print(f"| {videos:,} | {steps} | {planned:.1f} | {loaded:.1f} | {trained:.1f} |")


if __name__ == "__main__":
    main()
