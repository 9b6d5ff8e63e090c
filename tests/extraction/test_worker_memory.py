"""A worker's memory is bounded; a video that was unlucky is tried once more alone at the end."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vidssl.dataset.video import Source
from vidssl.extraction import process_pool, worker_memory
from vidssl.extraction.process_pool import VideoResult, process_videos

GIB = 1 << 30


def test_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_memory.sys, "platform", "linux")
    monkeypatch.setattr(worker_memory, "memory", lambda: 100 * GIB)
    assert worker_memory.worker_memory(1) == 90 * GIB
    assert worker_memory.worker_memory(10) == 9 * GIB
    assert worker_memory.worker_memory(64) == 4 * GIB, "enough for film"
    monkeypatch.setattr(worker_memory, "memory", lambda: 4 * GIB)
    assert worker_memory.worker_memory(8) < 4 * GIB, "never more than there is"
    monkeypatch.setattr(worker_memory, "memory", lambda: None)
    assert worker_memory.worker_memory(1) is None


def _greedy(source: Source, folder: Path) -> VideoResult:
    """Takes as many GiB as the name says, or is killed at the first two attempts."""
    with (folder / source.name).open("a") as file:
        file.write("x")
    if source.name == "killed" and (folder / source.name).stat().st_size < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if source.name.isdigit():
        np.empty(int(source.name) * GIB, np.uint8)
    return VideoResult(reason="done")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what is bounded")
def test_who_needs_more_than_its_share_gets_all_of_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process_pool, "worker_memory", lambda workers: 4 * GIB // workers)
    sources = [Source(f"{n}#0", Path(n), n, "0") for n in ("3", "9", "killed")]
    work = partial(_greedy, folder=tmp_path)
    found = {s.name: r.reason for s, r in process_videos(sources, work, 2)}
    assert found == {"3": "done", "9": process_pool.SHORT_OF_MEMORY, "killed": "done"}
    attempts = {name: len((tmp_path / name).read_text()) for name in found}
    assert attempts == {"3": 2, "9": 2, "killed": 3}


def test_a_kill_is_said_to_be_for_memory():
    assert process_pool._death(-signal.SIGKILL).reason == (
        "the process that worked on it crashed (SIGKILL): memory was short, or somebody ended it"
    )
    assert process_pool._death(3).reason == "the process that worked on it crashed (exit code 3)"
