"""Notes how long a worker takes for a video, and how much memory; workers import little for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from vidssl.dataset.decoding import duration
from vidssl.dataset.video import Source
from vidssl.extraction import pool
from vidssl.extraction.process_pool import VideoFunction, VideoResult


@contextmanager
def watched(log: Path) -> Iterator[None]:
    """Has the workers of all stages append a line for each video: seconds, MiB at most, name."""
    original = pool.process_videos

    def process(sources: Sequence[Source], function: VideoFunction, workers: int | None) -> object:
        return original(sources, partial(_measured, function=function, log=log), workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "process_videos", process)
        yield


def _measured(source: Source, function: VideoFunction, log: Path) -> VideoResult:
    _forget_peak()
    begin = time.monotonic()
    try:
        duration(source.path)  # what a dry run and parts look up first
        return function(source)
    finally:
        took = f"{time.monotonic() - begin:.3f}\t{_peak()}\t{source.name}\n"
        with log.open("a") as file:
            file.write(took)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Returns the MiB that this process held at most since its peak was forgotten."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) >> 10
