"""extract-flow: right flow, one artifact, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE
from video_files import moving_square, write_sound, write_video

from vidssl.base.errors import Interrupted, UsageError, VidsslError
from vidssl.dataset.decoding import decode
from vidssl.dataset.video import Source, find_videos
from vidssl.extraction import pool, process_pool
from vidssl.extraction.process_pool import VideoResult, process_videos
from vidssl.extraction.video_flow import extract_video_flow
from vidssl.optical_flow.algorithms import derive_flow, get_flow_method
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow
from vidssl.stages.extract_flow import ExtractFlow, choose_method, flow_params
from vidssl.views.flow import to_pixels
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        clip = moving_square(6 + number, 64, 48, step=(number - 2, 1), seed=number)
        write_video(folder / f"c{number % 2}" / f"v{number}.mp4", clip)
    return folder


@pytest.fixture(scope="module")
def config(videos: Path) -> ExtractFlow:
    return ExtractFlow(
        videos, method="dis", workers=2, size=None, stored=None, codec="png", bound=10
    )


@pytest.fixture(scope="module")
def finished(
    config: ExtractFlow, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, str]:
    """One workspace in which it ran undisturbed, and the digest of what it made."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    result = extract_flow.run(workspace, config)
    assert result.artifact is not None
    return workspace, result.artifact.digest


def small_run(videos: Path) -> ExtractFlow:
    return ExtractFlow(
        videos, method="dis", workers=2, size=None, stored=None, codec="png", bound=10
    )


def params_of(config: ExtractFlow) -> dict:
    return flow_params(config, choose_method(config)[0])


@contextmanager
def worked_on() -> Iterator[list[str]]:
    """Returns the names of the videos that workers are given meanwhile."""
    worked: list[str] = []

    def spy(sources, function, workers):
        worked.extend(source.name for source in sources)
        return process_videos(sources, function, workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "process_videos", spy)
        yield worked


def test_stored_flow_is_the_flow_of_the_decoded_frames(finished: tuple[Workspace, str]):
    workspace, _ = finished
    (artifact,) = workspace.artifacts("flow")
    reader = ShardReader(artifact.path)
    assert len(reader) == 6
    assert reader.frame_count("flow").sum() == sum(5 + n for n in range(6))
    folder = Path(artifact.path)
    assert not list(folder.glob("spool*"))
    assert list(reader.verify()) == []
    assert artifact.summary["videos"] == 6
    assert reader.views["flow"]["method_params"] == {"preset": "medium"}


def test_one_video_exactly(videos: Path, finished: tuple[Workspace, str]):
    reader = ShardReader(finished[0].artifacts("flow")[0].path)
    (source,) = (s for s in find_videos(videos) if s.name == "c1/v5.mp4")
    number = reader.find(source.id)
    expected = list(derive_flow(decode(source.path), get_flow_method("dis").start(), None))
    stored = reader.frames("flow", number, range(len(expected)))
    error = to_pixels(stored, 10) - np.clip(np.stack(expected), -10, 10)
    assert np.abs(error).max() <= 10 / 127 / 2 + 1e-4
    assert reader.videos.fps[number] == 25
    assert (reader.videos.width[number], reader.videos.height[number]) == (64, 48)
    assert reader.videos.frames[number] == len(expected) + 1


def test_the_same_command_gives_the_finished_artifact(
    finished: tuple[Workspace, str], config: ExtractFlow
):
    workspace, digest = finished
    again = extract_flow.run(workspace, replace(config, workers=1, shard_bytes=1000))
    assert again.reused
    assert again.artifact.digest == digest
    assert len(workspace.artifacts("flow")) == 1


def test_the_digest_does_not_depend_on_workers_shards_place_or_name(
    tmp_path: Path, config: ExtractFlow, finished: tuple[Workspace, str]
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(config.videos, target_is_directory=True)
    other = replace(config, videos=elsewhere, workers=1, shard_bytes=3000, name="other")
    result = extract_flow.run(Workspace(tmp_path / "w"), other)
    assert result.artifact.digest == finished[1]
    assert result.artifact.recipe == finished[0].artifacts("flow")[0].recipe
    assert len(list(result.artifact.path.glob("shard-*.h5"))) > 1


@pytest.mark.parametrize(
    "change",
    [{"method": "farneback"}, {"bound": 11}, {"size": 32}, {"stored": 24}, {"codec": "jpeg95"}],
)
def test_every_option_that_changes_the_flow_makes_another_run(
    config: ExtractFlow, change: dict[str, object]
):
    assert params_of(replace(config, **change)) != params_of(config)


def test_sizes_are_short_sides_and_flow_keeps_its_working_unit(tmp_path: Path):
    wide = moving_square(1, 240, 128)[0].repeat(2, axis=0).repeat(2, axis=1)
    clip = np.stack([wide[:, 32 - 8 * t : 32 - 8 * t + 384] for t in range(3)])  # 8 of 256
    path = write_video(tmp_path / "v.mp4", clip)
    source = find_videos(path)[0]
    params = params_of(ExtractFlow(path, method="dis", size=128, stored=64, bound=20, codec="png"))
    result = extract_video_flow(source, params)
    stored = extract_flow.get_view("flow").decode(result.blobs["flow"][0])
    assert stored.shape == (64, 96, 2)
    assert abs(np.median(to_pixels(stored, 20)[16:48, 24:72, 0]) - 4) < 0.3
    params = params_of(ExtractFlow(path, method="dis", size=128, stored=None, codec="png"))
    blob = extract_video_flow(source, params).blobs["flow"][0]
    assert extract_flow.get_view("flow").decode(blob).shape == (128, 192, 2)


def test_the_bound_follows_the_working_size(config: ExtractFlow):
    default = ExtractFlow(config.videos, method="dis")
    assert params_of(default)["bound"] == 20, "the published one, at the published size"
    assert params_of(replace(default, size=120))["bound"] == 10
    assert params_of(replace(default, size=None))["bound"] == 20
    assert params_of(replace(default, size=120, bound=7))["bound"] == 7


def test_a_grown_folder_is_not_computed_again(
    tmp_path: Path, config: ExtractFlow, finished: tuple[Workspace, str]
):
    grown = tmp_path / "grown"
    shutil.copytree(config.videos, grown)
    write_video(grown / "c0/new.mp4", moving_square(5, seed=77))
    workspace = Workspace(shutil.copytree(finished[0].root, tmp_path / "w"))
    with worked_on() as worked:
        result = extract_flow.run(workspace, replace(config, videos=grown))
    assert worked == ["c0/new.mp4"]
    anew = extract_flow.run(Workspace(tmp_path / "anew"), replace(config, videos=grown))
    assert result.artifact.digest == anew.artifact.digest
    again = extract_flow.run(workspace, replace(config, videos=grown, new=True))
    assert again.artifact.digest == anew.artifact.digest
    assert again.artifact.version == 3


# ── bad videos


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    good = write_video(folder / "good.mp4", moving_square(5))
    write_video(folder / "odd.mkv", moving_square(4, 51, 37))
    write_video(folder / "single.mp4", moving_square(1))
    write_video(folder / "tiny.mkv", moving_square(3, 11, 9))
    write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "truncated.mp4").write_bytes(good.read_bytes()[:200])
    (folder / "readme.txt").write_text("no video")
    return folder


def test_bad_videos_are_quarantined_with_their_reason(tmp_path: Path, mixed: Path):
    workspace = Workspace(tmp_path / "w")
    config = ExtractFlow(mixed, method="dis", workers=2, size=None, stored=None)
    result = extract_flow.run(workspace, config)
    reasons = dict(result.quarantined)
    assert set(reasons) == {"single.mp4", "tiny.mkv", "sound.mp4", "empty.mp4", "truncated.mp4"}
    assert reasons["single.mp4"] == "it has one frame only, and flow needs two"
    assert reasons["tiny.mkv"] == "dis cannot do frames of 11x9"
    assert reasons["sound.mp4"] == "it has no moving picture, only audio"
    assert reasons["empty.mp4"] == "the file is empty"
    assert "cannot be opened" in reasons["truncated.mp4"]
    assert result.artifact.summary["quarantined"] == 5
    assert "empty.mp4,the file is empty" in (result.artifact.path / "quarantine.csv").read_text()
    assert len(ShardReader(result.artifact.path)) == 2
    again = extract_flow.run(workspace, config)
    assert again.reused
    assert again.quarantined == result.quarantined


def test_damage_is_noted_and_the_rest_used(tmp_path: Path):
    clip = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "v" / "hurt.mp4", clip)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = b"\xff" * third
    path.write_bytes(data)
    workspace = Workspace(tmp_path / "w")
    result = extract_flow.run(workspace, ExtractFlow(tmp_path / "v", method="dis", workers=1))
    assert result.notes[0].startswith("hurt.mp4: damaged after frame")
    assert (
        extract_flow.run(workspace, ExtractFlow(tmp_path / "v", method="dis")).notes == result.notes
    )


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/empty.mp4").write_bytes(b"")
    (tmp_path / "v/other.mp4").write_bytes(b"")
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(VidsslError, match=r"not one of 2 videos can be used; the first, .*empty"):
        extract_flow.run(workspace, ExtractFlow(tmp_path / "v", method="dis", workers=1))
    assert workspace.artifacts() == []
    assert workspace.unfinished() == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "tvl"}, r"no flow method named 'tvl' \(did you mean tvl1\?\)"),
        ({"codec": "gif"}, "no codec named 'gif'"),
        ({"bound": 0}, "--bound 0 makes no sense"),
        ({"bound": float("nan")}, "--bound nan makes no sense"),
        ({"size": 3}, "--size 3 is too small"),
        ({"videos": Path("/nowhere")}, "there is no such folder"),
    ],
)
def test_bad_options_cost_one_sentence(
    tmp_path: Path, config: ExtractFlow, change: dict[str, object], sentence: str
):
    with pytest.raises(VidsslError, match=sentence) as caught:
        extract_flow.run(Workspace(tmp_path), replace(config, **change))
    assert caught.value.exit_code == (2 if isinstance(caught.value, UsageError) else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_leaves_nothing(tmp_path: Path, config: ExtractFlow):
    result = extract_flow.run(Workspace(tmp_path), replace(config, dry_run=True))
    assert result.plan["videos"] == 6
    assert list(tmp_path.iterdir()) == []


# ── stopped and begun again

# It takes its time after each video, so that whoever waits for a moment sees it.
RUN = """
import sys, time
from pathlib import Path
from vidssl.workspace.workspace import Workspace
from vidssl.base.errors import VidsslError
from vidssl.shards import ShardWriter
from vidssl.stages import extract_flow

def add_slowly(writer, record, blobs):
    add(writer, record, blobs)
    time.sleep(0.1)

add = ShardWriter.add
if __name__ == "__main__":
    ShardWriter.add = add_slowly
    config = extract_flow.ExtractFlow(
        Path(sys.argv[2]), method="dis", workers=2, size=None, stored=None, codec="png", bound=10
    )
    try:
        extract_flow.run(Workspace(sys.argv[1]), config)
    except VidsslError as error:
        print(error)
        sys.exit(error.exit_code)
"""


def start(folder: Path, videos: Path, journaled: int) -> subprocess.Popen:
    """Runs the stage in a process of its own until so many videos are in the journal."""
    script = folder / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(folder / "w"), str(videos)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        journals = list((folder / "w").glob("flow/main/.run-*/spool-0000.journal"))
        if journals and journals[0].read_bytes().count(b"\n") > journaled:
            return process
        time.sleep(0.002)
    raise AssertionError(f"it did not come so far (exit {process.poll()})")


def children(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    for number in range(12):
        write_video(folder / f"v{number}.mp4", moving_square(15, 160, 120, seed=number))
    return folder


def undisturbed(long_videos: Path, folder: Path) -> str:
    config = ExtractFlow(
        long_videos, method="dis", size=None, stored=None, codec="png", bound=10, workers=2
    )
    return extract_flow.run(Workspace(folder / "undisturbed"), config).artifact.digest


def go_on(long_videos: Path, folder: Path) -> tuple[str, list[str]]:
    """Runs again what was stopped; gives the digest and which videos were worked on."""
    config = ExtractFlow(
        long_videos, method="dis", size=None, stored=None, codec="png", bound=10, workers=2
    )
    with worked_on() as worked:
        result = extract_flow.run(Workspace(folder / "w"), config)
    return result.artifact.digest, worked


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_killed_it_goes_on_and_its_workers_die(tmp_path: Path, long_videos: Path):
    process = start(tmp_path, long_videos, 3)
    workers = children(process)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(_alive(pid) for pid in workers):
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)
    digest, worked = go_on(long_videos, tmp_path)
    assert len(worked) <= 9
    assert digest == undisturbed(long_videos, tmp_path)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(tmp_path: Path, long_videos: Path, number: int, code: int):
    process = start(tmp_path, long_videos, 2)
    os.killpg(process.pid, number)  # as a terminal and batch systems do: parent and workers
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "finished videos are kept" in out
    digest, worked = go_on(long_videos, tmp_path)
    assert len(worked) <= 10
    assert digest == undisturbed(long_videos, tmp_path)


def test_two_processes_do_not_work_on_one_run(tmp_path: Path, long_videos: Path):
    process = start(tmp_path, long_videos, 1)
    try:
        with pytest.raises(VidsslError, match="another process is at work on this very run"):
            go_on(long_videos, tmp_path)
    finally:
        process.kill()
        process.wait()


# ── the pool


def _odd_work(source: Source, folder: Path) -> VideoResult:
    """Crashes, fails or works, as the name says."""
    with (folder / source.name).open("a") as file:
        file.write("x")
    if source.name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if source.name.startswith("fail"):
        raise RuntimeError("a strange\nfile")
    return VideoResult(reason="done")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_crash_or_a_failure_costs_one_video(tmp_path: Path, workers: int):
    names = ["a", "crash1", "b", "fail", "crash2", "c"]
    sources = [Source(f"{n}#0", Path(n), n, "0") for n in names]
    work = partial(_odd_work, folder=tmp_path)
    found = {s.name: p.reason for s, p in process_videos(sources, work, workers)}
    assert found == {
        "a": "done",
        "b": "done",
        "c": "done",
        "fail": "RuntimeError: a strange file",
        "crash1": "the process that worked on it crashed (SIGSEGV)",
        "crash2": "the process that worked on it crashed (SIGSEGV)",
    }
    assert (tmp_path / "crash1").read_text() == "xxx", "again at once, and alone at the end"
    assert (tmp_path / "a").read_text() == "x"


SLEEP = """
import time
from pathlib import Path
from vidssl.extraction.process_pool import process_videos
from vidssl.dataset.video import Source

def sleep(source):
    print("asleep", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    list(process_videos([Source("a#0", Path("a"), "a", "0")], sleep, 1))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_worker_dies_with_its_parent_in_the_middle_of_a_video(tmp_path: Path):
    script = tmp_path / "sleep.py"
    script.write_text(SLEEP)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "asleep\n"
    workers = children(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(_alive(pid) for pid in workers):
        time.sleep(0.05)
    process.stdout.close()
    assert not any(_alive(pid) for pid in workers)


def test_no_video_no_process():
    assert list(process_videos([], partial(_odd_work, folder=Path()), 2)) == []


def test_interrupted_carries_the_exit_code():
    stop = process_pool.StopRequest()
    process_pool.raise_if_stopped(stop)
    stop.signal_number = signal.SIGTERM
    with pytest.raises(Interrupted) as caught:
        process_pool.raise_if_stopped(stop)
    assert caught.value.exit_code == 143
