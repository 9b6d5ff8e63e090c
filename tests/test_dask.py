"""The dask pool: the same artifact as from one machine, also when workers die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.artifacts import Workspace
from vidssl.errors import Interrupted, VidsslError
from vidssl.stages import dask_pool, extract_flow, pack, video_pool
from vidssl.stages.dask_pool import work_on_cluster
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.stages.video_pool import Product
from vidssl.video import Source, find_videos

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


def kill_a_worker(cluster: distributed.LocalCluster, workspace: Path) -> None:
    """Waits until two videos are done, then kills one of the processes that do them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journals = list(workspace.glob("flow/main/.run-*/spool-0000.journal"))
        if journals and journals[0].read_bytes().count(b"\n") > 2:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            return
        time.sleep(0.002)


def test_a_worker_is_killed_and_the_artifact_is_the_same(
    tmp_path: Path, videos: Path, cluster: distributed.LocalCluster
):
    config = ExtractFlow(videos, size=None, stored=None, codec="png", bound=10)
    expected = extract_flow.run(Workspace(tmp_path / "one"), replace(config, workers=1))
    victim = cluster.workers[0].pid
    killer = threading.Thread(target=kill_a_worker, args=(cluster, tmp_path / "w"))
    killer.start()
    there = replace(config, dask=cluster.scheduler_address)
    result = extract_flow.run(Workspace(tmp_path / "w"), there)
    killer.join()
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)
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


def _odd_work(source: Source, folder: Path) -> Product:
    """Crashes, fails, misses a file or works, as the name says."""
    with (folder / f"{source.name}.log").open("a") as file:
        file.write("x")
    if source.name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    if source.name.startswith("fail"):
        raise RuntimeError("a strange\nfile")
    if source.name.startswith("blind"):
        (folder / "not mounted").stat()
    return Product(reason="done")


def sources_in(folder: Path, names: list[str]) -> list[Source]:
    for name in names:
        (folder / name).write_bytes(b"")
    return [Source(f"{name}#0", folder / name, name, "0") for name in names]


def test_a_crash_or_a_failure_costs_one_video(tmp_path: Path, cluster: distributed.LocalCluster):
    sources = sources_in(tmp_path, ["a", "fail", "crash", "b", "gone", "c"])
    (tmp_path / "gone").unlink()
    work = partial(_odd_work, folder=tmp_path)
    pool = work_on_cluster(sources, work, cluster.scheduler_address)
    found = {source.name: product.reason for source, product in pool}
    assert (tmp_path / "crash.log").read_text() == "xx", "once with others, once alone"
    assert found == {
        "a": "done",
        "b": "done",
        "c": "done",
        "crash": "the dask workers that had it died",
        "fail": "RuntimeError: a strange file",
        "gone": "the file is gone",
    }


def test_a_worker_that_lacks_a_disk_is_no_fault_of_the_video(
    tmp_path: Path, cluster: distributed.LocalCluster
):
    work = partial(_odd_work, folder=tmp_path)
    sources = sources_in(tmp_path, ["blind"])
    with pytest.raises(VidsslError, match=r"a dask worker does not see .*not mounted, which is"):
        list(work_on_cluster(sources, work, cluster.scheduler_address))
    assert (tmp_path / "blind.log").read_text() == "x" * (1 + dask_pool.RETRIES), "tried elsewhere"


def test_a_worker_with_another_vidssl_is_refused(
    tmp_path: Path, cluster: distributed.LocalCluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dask_pool, "VERSION", "9.9")
    work = partial(_odd_work, folder=tmp_path)
    with pytest.raises(VidsslError, match=r"a dask worker has vidssl .*, and here it is 9\.9"):
        list(work_on_cluster(sources_in(tmp_path, ["a"]), work, cluster.scheduler_address))


def test_a_signal_ends_it_after_what_was_given(tmp_path: Path, cluster: distributed.LocalCluster):
    sources = sources_in(tmp_path, [f"v{n}" for n in range(30)])
    work = partial(_odd_work, folder=tmp_path)
    given = []
    with pytest.raises(Interrupted, match="finished videos are kept"):
        for source, _ in work_on_cluster(sources, work, cluster.scheduler_address):
            given.append(source.name)
            if len(given) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
    assert 3 <= len(given) < 30


def test_only_a_few_are_given_out_at_once(
    tmp_path: Path, cluster: distributed.LocalCluster, monkeypatch: pytest.MonkeyPatch
):
    """Products are large: a cluster that is faster than the disk here must not pile them up."""
    monkeypatch.setattr(dask_pool, "AHEAD", 2)
    sources = sources_in(tmp_path, [f"v{n}" for n in range(30)])
    work = partial(_odd_work, folder=tmp_path)
    pool = work_on_cluster(sources, work, cluster.scheduler_address)
    next(pool)
    time.sleep(1)
    assert len(list(tmp_path.glob("*.log"))) <= 2 * 2 + 1
    assert len(list(pool)) == 29


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
    tmp_path: Path,
    videos: Path,
    cluster: distributed.LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    config = ["extract-flow", videos, "--size", "32", "--dask", cluster.scheduler_address]
    result = vidssl(*config, "--json", workspace=tmp_path, code=3)
    assert result.json["summary"]["videos"] == 9


def test_without_the_extra_one_sentence_says_how_to_get_it(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    found = vidssl("extract-flow", videos, "--dask", "tcp://host:8786", workspace=tmp_path, code=1)
    assert "pip install 'vidssl[dask]'" in found.err


def test_the_products_are_those_of_local_processes(videos: Path, cluster: distributed.LocalCluster):
    params = extract_flow.flow_params(ExtractFlow(videos))
    work = partial(extract_flow.extract_video, params=params)
    sources = find_videos(videos)[:4]
    here = dict(video_pool.work_on_videos(sources, work, 1))
    assert dict(work_on_cluster(sources, work, cluster.scheduler_address)) == here
