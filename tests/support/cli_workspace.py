"""Drives the command line in-process, and makes the small labelled videos it is driven on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner
from video_files import moving_square, write_video

from vidssl.cli import app

STEPS = {"left": (-3, 0), "right": (3, 0), "down": (0, 3)}
CLIPS_PER_CLASS = 6
# Small enough for seconds: what is tested here is the plumbing, not the learning.
SMALL = ["--epochs", "2", "--batch-size", "4", "--set", "frames=4", "--set", "size=32"]
SMALL += ["--set", "queue=8"]


class Result:
    """What one command printed and how it ended."""

    def __init__(self, raw: Any) -> None:
        self.code, self.out, self.err = raw.exit_code, raw.stdout, raw.stderr
        self.exception = raw.exception

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def vidssl(*arguments: object, workspace: Path, code: int | None = 0) -> Result:
    """Runs `vidssl ARGUMENTS -w WORKSPACE` and checks the exit code, unless it is None."""
    raw = CliRunner().invoke(app, [*map(str, arguments), "-w", str(workspace)])
    result = Result(raw)
    assert code is None or result.code == code, (
        f"exit {result.code}: {result.out}\n{result.err}\n{result.exception!r}"
    )
    return result


def make_videos(folder: Path, clips: int = CLIPS_PER_CLASS, frames: int = 12) -> Path:
    """Writes clips of a moving square, labelled by folder."""
    for label, step in STEPS.items():
        (folder / label).mkdir(parents=True)
        for n in range(clips):
            picture = moving_square(frames, 64, 48, step, seed=hash_of(label, n))
            write_video(folder / label / f"{label}_{n}.mp4", picture)
    return folder


def hash_of(label: str, n: int) -> int:
    """Returns a seed that is the same in every process."""
    return 100 * sorted(STEPS).index(label) + n


def run_pipeline(videos: Path, workspace: Path) -> None:
    """Runs the stages up to a co-trained pair."""
    vidssl("extract-flow", videos, "--workers", 1, workspace=workspace)
    vidssl("pack", videos, "--workers", 1, workspace=workspace)
    vidssl("pretrain", "--stream", "rgb", *SMALL, workspace=workspace)
    vidssl("pretrain", "--stream", "flow", *SMALL, workspace=workspace)
    vidssl("cotrain", "--stream", "rgb", "--k", 2, *SMALL, workspace=workspace)
