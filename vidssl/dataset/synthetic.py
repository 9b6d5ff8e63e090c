"""Writes a small synthetic data set: video clips whose class is their motion and nothing else.

:mod:`vidssl.dataset.synthetic_scene` renders the clips. Every test scene is shown in each of the
motions, as a control: a model that sees only the scene cannot tell the class.

    FOLDER/MOTION/MOTION_NNNN.mp4     the clips
    FOLDER/splits.csv                 path, label, group and split, for `pack --labels`
    FOLDER/clips.json                 how the clips were made
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.progress import SILENT, Progress
from vidssl.base.signals import signals_blocked_in_children
from vidssl.base.stored_json import read_json
from vidssl.dataset.synthetic_scene import FRAMES, MOTIONS, SIZE, render_clip

FPS = 25


@dataclass(frozen=True)
class PlannedClip:
    """One clip to write.

    Attributes:
        path: relative to the folder.
        motion: its class.
        seed: of its appearance.
        split: train or test.
        scene: clips of one scene look the same and form one group.
    """

    path: str
    motion: str
    seed: int
    split: str
    scene: str


def plan_clips(clips: int, seed: int = 0) -> Iterator[PlannedClip]:
    """Yields the clips of a folder; of each motion every third is for training.

    Test clips cost little, and of fewer the figures would be too coarse to tell methods apart.

    Every training clip is a scene of its own. A test scene has one clip of each motion: a model
    that sees only the scene gives all six the same answer, and one of them is right.

    The motions come in turn, so their counts differ by at most one, and the first clips of a larger
    folder are those of a smaller one.
    """
    for i in range(clips):
        motion, nth = MOTIONS[i % len(MOTIONS)], i // len(MOTIONS)
        split = "train" if nth % 3 == 0 else "test"
        scene = i if split == "train" else nth * len(MOTIONS)
        own = int(np.random.SeedSequence([seed, scene]).generate_state(1)[0])
        path = f"{motion}/{motion}_{nth:04d}.mp4"
        yield PlannedClip(path, motion, own, split, f"scene_{scene:05d}")


def write_clips(
    folder: Path,
    clips: int,
    seed: int = 0,
    frames: int = FRAMES,
    size: tuple[int, int] = SIZE,
    fps: int = FPS,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Path:
    """Writes clips and splits.csv into a folder, and returns the folder.

    Files that exist are kept, so an interrupted call can be repeated.

    Args:
        clips: how many.
        size: (width, height) in pixels.
        workers: processes; 1: this one.

    Raises:
        VidsslError: the folder holds clips that were made with another seed or shape.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_with = {"seed": seed, "frames": frames, "size": list(size), "fps": fps}
    _check_made_with(folder, made_with)
    planned = list(plan_clips(clips, seed))
    make = partial(_write_clip, folder, frames=frames, size=size, fps=fps)
    left = [clip for clip in planned if not (folder / clip.path).exists()]
    with progress.task("make clips", len(planned), "clip", len(planned) - len(left)) as task:
        for _ in _make_each(make, left, workers):
            task.advance()
    _write_splits(folder / "splits.csv", planned)
    return folder


def _make_each(
    make: Callable[[PlannedClip], None], planned: list[PlannedClip], workers: int
) -> Iterator[None]:
    if workers == 1:
        yield from map(make, planned)
        return
    # spawn: a fork would copy the locks of whatever threads the caller runs.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        with signals_blocked_in_children():  # map() starts all processes
            made = pool.map(make, planned, chunksize=len(MOTIONS))
        yield from made
    finally:
        pool.shutdown(cancel_futures=True)


def _write_clip(
    folder: Path, clip: PlannedClip, frames: int, size: tuple[int, int], fps: int
) -> None:
    path = folder / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_clip(path, render_clip(clip.motion, clip.seed, frames, size), fps)


def _check_made_with(folder: Path, made_with: dict[str, object]) -> None:
    """Writes clips.json; raises if it is there and says that the clips are made otherwise."""
    note = folder / "clips.json"
    if not note.exists():
        atomic_write(note, json.dumps(made_with).encode())
    elif (found := read_json(note)) != made_with:
        raise VidsslError(f"{folder} holds clips made with {found!s:.200}: give another folder")


def encode_clip(path: Path, clip: np.ndarray, fps: int = FPS) -> None:
    """Writes a clip, RGB uint8 [T, H, W, 3], as H.264; it appears only when complete."""
    import av  # here: a training machine may import this module and have no av

    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    with av.open(str(part), "w", format="mp4") as container:
        # One thread: for such small pictures, several processes are faster than several threads.
        options = {"crf": "18", "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(part, path)


def _write_splits(path: Path, planned: list[PlannedClip]) -> None:
    """Writes splits.csv as `pack --labels` reads it; clips of one scene are one group."""
    rows = [(p.path, p.motion, p.scene, p.split) for p in planned]
    lines = [",".join(row) for row in [("path", "label", "group", "split1"), *rows]]
    atomic_write(path, ("\n".join(lines) + "\n").encode())
