"""Ctrl-C and SIGTERM before there is work to save, and in processes that their parent stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE
from video_files import moving_square, write_video

from vidssl.dataset.video import Source, find_videos
from vidssl.extraction.process_pool import VideoResult, _Start, _Worker

# A module that gets the signal amid its import, inside exec: after that Python itself would end
# with the signal rather than with the exit code that it was asked for.
STRUCK = """
import os, time
exec("os.kill(os.getpid(), {number}); time.sleep(30)")
"""


@pytest.mark.parametrize("module", ["typer", "torch"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_imports_ends_with_one_line(tmp_path, module, number):
    (tmp_path / f"{module}.py").write_text(STRUCK.format(number=int(number)))
    done = subprocess.run(
        [sys.executable, "-m", "vidssl", "pretrain", "-w", tmp_path / "workspace"],
        capture_output=True, text=True, timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        # What a shell starts in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "vidssl: interrupted\n"
    assert not (tmp_path / "workspace").exists()


def name_of(source: Source) -> Iterator[VideoResult]:
    yield VideoResult(reason=source.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_blocks_signals_from_its_first_moment(tmp_path: Path, number: int) -> None:
    """A terminal sends Ctrl-C to the workers as well, also while they are still importing."""
    write_video(tmp_path / "clip.mp4", moving_square(2))
    worker = _Worker(_Start(name_of, count=1, bounded=False))
    try:
        os.kill(worker.process.pid, number)
        worker.give(find_videos(tmp_path))
        _, result = worker.take()
        assert not worker.dead and result.reason == "clip.mp4"
    finally:
        worker.end()


def test_the_parent_still_hears() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not {signal.SIGINT, signal.SIGTERM} & blocked
