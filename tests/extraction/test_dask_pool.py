"""The dask pool: the same artifact as from one machine, also when workers die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.dataset.video import Source
from vidssl.extraction import dask_pool
from vidssl.extraction.dask_pool import process_on_cluster
from vidssl.extraction.process_pool import SHORT_OF_MEMORY, VideoResult
from vidssl.shards import ShardWriter, VideoRecord
from vidssl.stages import extract_flow, pack
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace

distributed = pytest.importorskip(
    "distributed", reason="dask.distributed is not installed: pip install 'vidssl[dask]'"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    """Two processes; one that dies is replaced by another, and what it had is under suspicion."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(9):
        clip = moving_square(15, 160, 120, step=(number % 3, 1), seed=number)
        write_video(folder / f"class{number % 2}" / f"v{number}.mp4", clip)
    (folder / "class0/broken.mp4").write_bytes(b"no video")
    return folder


def test_a_worker_is_killed_and_the_artifact_is_the_same(
    tmp_path: Path,
    videos: Path,
    cluster: distributed.LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
):
    config = ExtractFlow(videos, size=None, stored=None, codec="png", bound=10)
    expected = extract_flow.run(Workspace(tmp_path / "one"), replace(config, workers=1))
    victim, stored = cluster.workers[0].pid, []

    def add(writer: ShardWriter, record: VideoRecord, blobs: Mapping) -> None:
        original(writer, record, blobs)
        stored.append(record.path)
        if len(stored) == 2:
            os.kill(victim, signal.SIGKILL)  # with videos before it and others given out to it

    original = ShardWriter.add
    monkeypatch.setattr(ShardWriter, "add", add)
    there = replace(config, dask=cluster.scheduler_address)
    result = extract_flow.run(Workspace(tmp_path / "w"), there)
    assert len(stored) == len(set(stored)) == 9
    assert victim not in [worker.pid for worker in cluster.workers.values()]
    assert result.artifact.digest == expected.artifact.digest
    assert result.artifact.recipe == expected.artifact.recipe
    assert result.quarantined == expected.quarantined
    assert [video for video, _ in result.quarantined] == ["class0/broken.mp4"]
    again = extract_flow.run(Workspace(tmp_path / "w"), replace(config, workers=1))
    assert again.reused, "where the work is done is no part of what the run is"


def test_pack_takes_flow_on_the_cluster(
    tmp_path: Path, videos: Path, cluster: distributed.LocalCluster, monkeypatch: pytest.MonkeyPatch
):
    """The workers began in another folder, so what they read must have full paths."""
    monkeypatch.chdir(tmp_path)
    Path("videos").symlink_to(videos, target_is_directory=True)
    workspace = Workspace("w")
    extract_flow.run(workspace, ExtractFlow(Path("videos"), workers=1, size=32, stored=24))
    config = Pack(Path("videos"), size=32)
    result = pack.run(workspace, replace(config, dask=cluster.scheduler_address))
    twin = pack.run(workspace, replace(config, workers=1, new=True))
    assert not twin.reused
    assert result.artifact.digest == twin.artifact.digest
    assert set(result.artifact.summary["views"]) == {"rgb", "flow"}
    assert result.annotations.digest == twin.annotations.digest


# ── the pool


def _odd_work(source: Source, folder: Path) -> VideoResult:
    """Crashes, fails, misses a file or works, as the name says."""
    with (folder / f"{source.name}.log").open("a") as file:
        file.write("x")
    if source.name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    if source.name.startswith("short"):
        raise MemoryError
    if source.name.startswith("fail"):
        raise RuntimeError("a strange\nfile")
    if source.name.startswith("blind"):
        (folder / "not mounted").stat()
    return VideoResult(reason="done")


def sources_in(folder: Path, names: list[str]) -> list[Source]:
    for name in names:
        (folder / name).write_bytes(b"")
    return [Source(f"{name}#0", folder / name, name, "0") for name in names]


def test_what_is_the_fault_of_a_video_and_what_is_not(
    tmp_path: Path, cluster: distributed.LocalCluster
):
    sources = sources_in(tmp_path, ["a", "fail", "crash", "b", "gone", "c", "short"])
    (tmp_path / "gone").unlink()
    work = partial(_odd_work, folder=tmp_path)
    pool = process_on_cluster(sources, work, cluster.scheduler_address)
    found = {source.name: result.reason for source, result in pool}
    assert (tmp_path / "crash.log").read_text() == "xx", "once with others, once alone"
    assert found == {
        "a": "done",
        "b": "done",
        "c": "done",
        "crash": "the dask workers that had it died",
        "fail": "RuntimeError: a strange file",
        "gone": "the file is gone",
        "short": SHORT_OF_MEMORY,
    }
    assert (tmp_path / "short.log").read_text() == "xx", "once with others, once alone"
    with pytest.raises(VidsslError, match=r"a dask worker does not see .*not mounted, which is"):
        list(process_on_cluster(sources_in(tmp_path, ["blind"]), work, cluster.scheduler_address))
    assert (tmp_path / "blind.log").read_text() == "x" * (1 + dask_pool.RETRIES), "tried elsewhere"


def test_a_few_at_once_and_a_signal_ends_it(
    tmp_path: Path, cluster: distributed.LocalCluster, monkeypatch: pytest.MonkeyPatch
):
    """Products are large: a cluster that is faster than the disk here must not pile them up."""
    monkeypatch.setattr(dask_pool, "AHEAD", 2)
    sources = sources_in(tmp_path, [f"v{n}" for n in range(30)])
    work = partial(_odd_work, folder=tmp_path)
    pool = process_on_cluster(sources, work, cluster.scheduler_address)
    given = [next(pool)]
    time.sleep(1)
    assert len(list(tmp_path.glob("*.log"))) <= 2 * 2 + 1
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="finished videos are kept"):
        given.extend(pool)
    assert 1 <= len(given) <= 2 * 2 + 1


def test_a_worker_with_another_vidssl_is_refused(tmp_path: Path):
    (source,) = sources_in(tmp_path, ["a"])
    with pytest.raises(VidsslError, match=r"a dask worker has vidssl .*, and here it is 9\.9"):
        dask_pool.process_on_worker(source, partial(_odd_work, folder=tmp_path), "9.9")


# ── the command line


def test_no_scheduler_there(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dask_pool, "CONNECT_SECONDS", 1)
    found = vidssl(
        "extract-flow", videos, "--dask", "tcp://127.0.0.1:1", workspace=tmp_path, code=1
    )
    assert "no dask scheduler can be reached at tcp://127.0.0.1:1" in found.err
    found = vidssl("extract-flow", videos, "--dask", "nonsense:x", workspace=tmp_path, code=1)
    assert "no dask scheduler can be reached at nonsense:x" in found.err


@pytest.mark.parametrize("other", [["--shard", "0/2"], ["--workers", "2"]])
def test_the_cluster_divides_the_work_by_itself(tmp_path: Path, videos: Path, other: list[str]):
    arguments = ["extract-flow", videos, "--dask", "tcp://127.0.0.1:1", *other]
    found = vidssl(*arguments, workspace=tmp_path, code=2)
    assert f"leave {other[0]} out" in found.err


def test_what_slurm_set_means_nothing_to_the_cluster(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    command = ["extract-flow", videos, "--dry-run", "--json"]
    assert vidssl(*command, workspace=tmp_path).json["plan"]["part"] == "0/2"
    there = vidssl(*command, "--dask", "tcp://host:8786", workspace=tmp_path)
    assert "part" not in there.json["plan"]


def test_without_the_extra_one_sentence_says_how_to_get_it(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for command in (["extract-flow"], ["pack"], ["extract-view", "--view", "pose"]):
        words = [*command, videos, "--dask", "tcp://host:8786"]
        found = vidssl(*words, workspace=tmp_path / "w", code=1)
        assert found.err.startswith("vidssl: --dask needs distributed"), "before anything else"
        assert found.err.count("\n") == 1 and "pip install 'vidssl[dask]'" in found.err
        assert found.out == "" and not (tmp_path / "w").exists()
