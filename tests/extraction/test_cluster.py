"""A cluster in small: eight parts, two at a time, some killed, as a Slurm array runs them."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from pathlib import Path

import pytest
from forked import Forked, call_vidssl
from patience import PATIENCE
from video_files import moving_square, write_video

from vidssl.shards import ShardWriter
from vidssl.stages import extract_flow, verify
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

PARTS, AT_ONCE = 8, 2
DOOMED = {1, 2, 6}  # killed in their first attempt, after their first video
OPTIONS = ["--workers", "1", "--size", "0", "--stored-size", "0", "--codec", "png", "--bound", "10"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2 * PARTS + 5):
        clip = moving_square(10 + number, 160, 120, step=(number % 3, 1), seed=number)
        write_video(folder / f"class{number % 2}" / f"v{number}.mp4", clip)
    (folder / "class0/broken.mp4").write_bytes(b"no video")
    return folder


def start(videos: Path, workspace: Path, part: int, doomed: bool) -> Forked:
    """Starts one task of a Slurm array; a doomed one dies as soon as its first video is stored."""
    array = {"ID": part, "COUNT": PARTS, "MIN": 0, "MAX": PARTS - 1, "STEP": 1}
    variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    arguments = ["extract-flow", str(videos), "-w", str(workspace), *OPTIONS]
    return Forked(die_at_first_video if doomed else call_vidssl, arguments, environment=variables)


def die_at_first_video(arguments: list[str]) -> None:
    """Runs the command line until a video is stored, in a process of its own."""
    add = ShardWriter.add

    def add_and_die(*told: object) -> None:
        add(*told)
        os.kill(os.getpid(), signal.SIGKILL)

    ShardWriter.add = add_and_die
    call_vidssl(arguments)


def test_killed_parts_end_with_what_one_process_makes(tmp_path: Path, videos: Path):
    workspace = tmp_path / "many"
    waiting, running = deque(range(PARTS)), dict[int, Forked]()
    codes: dict[int, list[int]] = {part: [] for part in range(PARTS)}
    said = []
    deadline = time.monotonic() + PATIENCE
    while waiting or running:
        assert time.monotonic() < deadline, said
        while waiting and len(running) < AT_ONCE:
            part = waiting.popleft()
            running[part] = start(videos, workspace, part, part in DOOMED and not codes[part])
        for part, process in list(running.items()):
            if process.poll() is not None:
                codes[part].append(process.returncode)
                said.append("".join(process.communicate()))
                del running[part]
                if process.returncode < 0:
                    waiting.append(part)  # as requeued
        time.sleep(0.02)
    assert all(found[-1] in (0, 3) for found in codes.values()), said
    assert [part for part, found in codes.items() if -signal.SIGKILL in found] == sorted(DOOMED)
    assert any("Slurm (--shard 0/1 does all of it here)" in text for text in said)
    assert sum("flow/main/v001" in text for text in said) >= 1, "the last one publishes"
    check(Workspace(workspace), one_process(tmp_path, videos))


def one_process(folder: Path, videos: Path) -> Artifact:
    config = ExtractFlow(videos, workers=1, size=None, stored=None, codec="png", bound=10)
    return extract_flow.run(Workspace(folder / "one"), config).artifact


def check(workspace: Workspace, expected: Artifact) -> None:
    (artifact,) = workspace.artifacts()
    assert artifact.digest == expected.digest
    assert artifact.recipe == expected.recipe
    quarantine = (artifact.path / "quarantine.csv").read_text()
    assert quarantine == (expected.path / "quarantine.csv").read_text()
    assert "class0/broken.mp4" in quarantine
    assert workspace.unfinished() == []
    assert verify.run(workspace).ok
