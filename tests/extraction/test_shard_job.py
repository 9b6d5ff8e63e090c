"""A run in parts: whoever does what, and whatever is killed, the artifact is the same."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import parted_run
import pytest
from cli_workspace import vidssl
from parted_run import COUNT, PARAMS, Site, Stopped, check, result_of
from patience import PATIENCE

from vidssl.base.errors import VidsslError
from vidssl.base.locks import file_lock
from vidssl.base.progress import SILENT
from vidssl.dataset.video import Source
from vidssl.extraction import gathering, part_folders, shard_job
from vidssl.extraction.part_folders import PartFolder
from vidssl.extraction.part_videos import find_part_videos
from vidssl.extraction.partition import Part
from vidssl.extraction.process_pool import VideoResult
from vidssl.extraction.shard_job import ShardJob, run_shard_job
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow, pack, status, verify
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace import artifacts
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    """The run by one process, undisturbed."""
    return Site(tmp_path_factory.mktemp("whole")).run()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w")


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_any_number_of_parts_makes_the_same_artifact(site: Site, whole: StageResult, count: int):
    for index in range(count - 1):
        result = site.run(f"{index}/{count}")
        assert result.artifact is None
        assert result.part.unfinished == count - 1 - index
        assert result.as_dict()["part"] == f"{index}/{count}"
        assert len(site.workspace.artifacts()) == 0
    result = site.run(f"{count - 1}/{count}")
    check(site, result, whole)
    assert sorted(site.worked) == sorted(source.name for source in site.sources)


def test_shards_are_moved_and_not_copied(site: Site):
    site.run("0/2")
    files = list(site.workspace.root.glob("flow/main/.run-*/parts/*/shard-*.h5"))
    inodes = {path.stat().st_ino for path in files}
    result = site.run("1/2")
    there = {path.stat().st_ino for path in result.artifact.path.glob("shard-*.h5")}
    assert inodes and inodes < there


def test_stored_shards_are_read_once_before_they_are_published(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    """To compare them with the digests in part.json; publishing does not read them once more."""
    read: list[str] = []
    original = artifacts.file_digest
    monkeypatch.setattr(artifacts, "file_digest", lambda p: read.append(str(p)) or original(p))
    site.run("0/2")
    assert read == []
    result = site.run("1/2")
    shards = [path for path in read if not path.endswith("quarantine.csv")]
    assert len(shards) == len(set(shards)) == len(list(result.artifact.path.glob("shard-*.h5")))
    assert all("parts/0000-of-0002" in path or "parts/0001-of-0002" in path for path in shards)
    assert len(result.artifact.payload) == len(list(result.artifact.path.iterdir())) - 1


def test_a_finished_part_and_a_finished_run_are_not_done_again(site: Site, whole: StageResult):
    first = site.run("0/2")
    again = site.run("0/2")
    assert again.reused and not first.reused
    assert again.part == first.part
    result = site.run("1/2")
    assert len(site.worked) == COUNT
    for shard in ("0/2", "1/2", None, "3/5"):
        late = site.run(shard)
        assert late.reused and late.artifact == result.artifact
        assert late.quarantined == result.quarantined
    check(site, result, whole)
    assert len(site.workspace.artifacts()) == 1


def test_new_repeats_a_run_in_parts(site: Site):
    for _ in range(2):
        for index in range(3):
            result = site.run(f"{index}/3", new=True)
    assert result.artifact.version == 2
    assert len(site.worked) == 2 * COUNT


def test_quarantined_videos_come_with_their_reasons(site: Site, whole: StageResult):
    results = [site.run(f"{index}/4") for index in range(4)]
    parts = [r.quarantined for r in results[:3] if r.quarantined]
    assert parts in ([], [[("v5", "it is odd")]])
    check(site, results[-1], whole)
    assert "v5,it is odd" in (results[-1].artifact.path / "quarantine.csv").read_text()


# ── killed, and divided otherwise


def test_a_killed_part_goes_on(site: Site, whole: StageResult):
    site.killed("0/2", after=3)
    site.run("1/2")
    check(site, site.run("0/2"), whole)
    assert len(site.worked) == COUNT


def test_one_process_finishes_what_parts_began(site: Site, whole: StageResult):
    site.killed("0/3", after=2)
    site.run("1/3")
    site.killed("2/3", after=1)
    check(site, site.run(), whole)
    assert sorted(site.worked) == sorted(source.name for source in site.sources)


def test_parts_finish_what_one_process_began(site: Site, whole: StageResult):
    site.killed(None, after=5)
    site.run("0/2")
    check(site, site.run("1/2"), whole)
    assert len(set(site.worked)) == COUNT
    # The odd one is no finished video: it may be tried again.
    assert sorted(site.worked) in (sorted(set(site.worked)), sorted([*set(site.worked), "v5"]))


def test_another_number_of_parts_does_no_finished_video_again(site: Site, whole: StageResult):
    site.killed("0/8", after=1)
    for index in range(1, 6):
        site.run(f"{index}/8")
    site.killed("6/8", after=0)
    done = set(site.worked)
    site.worked.clear()
    with pytest.raises(Stopped):
        for index in range(3):
            site.run(f"{index}/3", dies_after=0)
    results = [site.run(f"{index}/3") for index in range(3)]
    check(site, results[-1], whole)
    assert len(site.worked) == COUNT - len(done) == 3
    assert not done & set(site.worked)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_killed_the_end_is_the_same(tmp_path: Path, whole: StageResult, seed: int):
    draw = np.random.default_rng(seed)
    site = Site(tmp_path / "w", shard_bytes=int(draw.choice([1, 600, 10_000])))
    for _ in range(12):
        count = int(draw.choice([2, 3, 5]))
        shard = None if draw.random() < 0.1 else f"{draw.integers(count)}/{count}"
        try:
            site.run(shard, dies_after=int(draw.integers(5)))
        except Stopped:
            continue
    check(site, site.run(), whole)
    repeated = [name for name in set(site.worked) if site.worked.count(name) > 1]
    assert set(repeated) <= {"v5"}


STEPS = ("write_json", "file_record", "fsync_folder", "write_quarantine", "shutil.rmtree")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", ["1/2", None, "0/5"])
def test_the_last_part_is_killed_while_it_gathers(
    site: Site, whole: StageResult, step: str, after: bool, then: str | None
):
    """At the end of its work, before and after each step of gathering; then anyone ends it."""
    site.run("0/2")

    def kill(*arguments, **options):
        if after:
            original(*arguments, **options)
        raise Stopped

    owner, name = (gathering.shutil, "rmtree") if "." in step else (gathering, step)
    if not hasattr(owner, name):
        owner = part_folders
    original = getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, kill)
        site.killed("1/2", after=100)
    assert site.workspace.artifacts() == []
    result = site.run(then)
    if result.artifact is None:  # the killed one had not declared its part finished
        result = site.run()
    check(site, result, whole)
    assert len(site.worked) == len(set(site.worked)) or site.worked.count("v5") == 2


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_killed_between_two_moves(site: Site, whole: StageResult, moved: int):
    site.run("0/2")
    original, count = os.rename, []

    def rename(source: Path, target: Path) -> None:
        if len(count) == moved:
            raise Stopped
        count.append(1)
        original(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering.os, "rename", rename)
        site.killed("1/2", after=100)
    check(site, site.run("0/2"), whole)
    assert len(site.worked) == COUNT


def test_the_last_part_is_killed_while_another_is_about_to_look(
    site: Site, whole: StageResult, monkeypatch: pytest.MonkeyPatch
):
    """All is gathered, nothing is published, and the other's own folder is gone."""
    original = PartFolder.finish

    def finish(folder: PartFolder, quarantine: Sequence) -> None:
        original(folder, quarantine)
        if folder.part.index == 0:
            with monkeypatch.context() as patch:
                patch.setattr(shard_job, "_publish", lambda *_: (_ for _ in ()).throw(Stopped))
                site.killed("1/2", after=100)

    monkeypatch.setattr(PartFolder, "finish", finish)
    check(site, site.run("0/2"), whole)
    assert len(site.worked) == COUNT


# ── side by side


def test_the_same_part_twice_is_refused_and_harms_nothing(site: Site, whole: StageResult):
    refusals = []

    def pool(sources: Sequence[Source]) -> Iterator[tuple[Source, VideoResult]]:
        for source in sources:
            if not refusals:
                for shard in ("0/2", None, "0/3"):
                    with pytest.raises(VidsslError) as caught:
                        site.run(shard)
                    refusals.append(str(caught.value))
            yield source, result_of(source)

    with site.open(shared=True) as run:
        job = ShardJob("test", PARAMS, pool, site.shard_bytes)
        run_shard_job(run, job, site.sources, SILENT, site.share(Part(0, 2)))
    same, all_of_it, divided_otherwise = refusals
    assert "another process is at work on part 0/2 of this run" in same
    assert "another process is at work on this very run" in all_of_it
    assert "this run is being worked on in 2 parts" in divided_otherwise
    assert site.worked == []
    check(site, site.run("1/2"), whole)


def test_parts_are_refused_while_one_process_does_all(site: Site, whole: StageResult):
    with site.open(shared=False), pytest.raises(VidsslError, match="at work on this very run"):
        site.run("0/2")
    check(site, site.run(), whole)


def test_other_parts_may_begin_and_end_meanwhile(site: Site, whole: StageResult):
    results = []

    def pool(sources: Sequence[Source]) -> Iterator[tuple[Source, VideoResult]]:
        for source in sources:
            if not results:
                results.append(site.run("1/2"))
            yield source, result_of(source)

    with site.open(shared=True) as run:
        job = ShardJob("test", PARAMS, pool, site.shard_bytes)
        last = run_shard_job(run, job, site.sources, SILENT, site.share(Part(0, 2)))
    assert results[0].artifact is None
    check(site, last, whole)


def test_one_that_comes_too_late_finds_the_artifact(site: Site, whole: StageResult):
    """It looked before the last part published, and locked after."""
    site.run("0/2")
    with site.open(shared=True) as run:
        done = site.run("1/2")
        assert run.finished is None
        run._note_start()  # as if it had been so far then
        job = ShardJob("test", PARAMS, site.pool(None), site.shard_bytes)
        late = run_shard_job(run, job, site.sources, SILENT, site.share(Part(0, 2)))
    assert late.reused and late.artifact == done.artifact
    check(site, done, whole)


def _serve(root: Path, shard: str, queue: multiprocessing.Queue) -> None:
    site = Site(root)
    result = site.run(shard)
    queue.put((shard, result.artifact is not None, site.worked))


def test_processes_side_by_side(tmp_path: Path, whole: StageResult):
    context = multiprocessing.get_context("fork")  # starts at once: so all end at once, too
    queue = context.Queue()
    shards = [f"{index}/6" for index in range(6)]
    processes = [context.Process(target=_serve, args=(tmp_path / "w", s, queue)) for s in shards]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sum(published for _, published, _ in answers) >= 1
    worked = [name for _, _, names in answers for name in names]
    assert sorted(worked) == sorted(f"v{n}" for n in range(COUNT))
    site = Site(tmp_path / "w")
    result = site.run()
    assert result.reused
    check(site, result, whole)


# ── what goes wrong


def test_nothing_usable_is_found_by_the_last(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parted_run, "result_of", lambda source: VideoResult(reason="it is odd"))
    assert len(site.run("0/2").quarantined) == COUNT // 2
    with pytest.raises(VidsslError, match=rf"not one of {COUNT} videos can be used; the first, v"):
        site.run("1/2")
    assert site.workspace.unfinished() == site.workspace.artifacts() == []


def test_a_video_in_two_parts_is_refused(site: Site):
    """As when locks do not reach over the machines: never an artifact with a video twice."""
    site.killed("0/2", after=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_job, "finished_ids", lambda *_: set())
        site.run("0/3")
        site.run("1/3")
        with pytest.raises(VidsslError, match=r"is both in .* and in .*: delete the second"):
            site.run("2/3")
    assert site.workspace.artifacts() == []


def test_a_part_of_an_unknown_version(site: Site):
    site.run("0/2")
    (path,) = site.workspace.root.glob("flow/main/.run-*/parts/*/part.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(VidsslError, match="format version 9, and this vidssl reads version 1"):
        site.run("1/2")


def test_status_tells_how_many_parts_are_finished(site: Site):
    site.run("0/4")
    site.run("3/4")
    site.killed("2/4", after=1)
    (unfinished,) = status.run(site.workspace).unfinished
    assert unfinished.parts == "2 of 4 parts finished" and not unfinished.running
    (path,) = site.workspace.root.glob("flow/main/.run-*/parts/0002-of-0004.lock")
    with file_lock(path):
        (unfinished,) = status.run(site.workspace).unfinished
    assert unfinished.parts == "2 of 4 parts finished, 1 at work"


def test_a_lock_whose_file_was_deleted_is_none(tmp_path: Path):
    path = tmp_path / "lock"
    with file_lock(path):
        path.unlink()
        with file_lock(path, "taken"):
            assert is_held(path)


def is_held(path: Path, shared: bool = False) -> bool:
    try:
        with file_lock(path, "taken", shared):
            return False
    except VidsslError:
        return True


def test_shared_locks(tmp_path: Path):
    path = tmp_path / "lock"
    with file_lock(path, "taken", shared=True), file_lock(path, "taken", shared=True):
        assert is_held(path)
    with file_lock(path, "taken"):
        assert is_held(path, shared=True)
    assert not is_held(path)


# ── the stages


def test_extract_flow_and_pack_in_parts(tmp_path: Path, clips: Path):
    flow = ExtractFlow(clips, workers=1, stored=24)
    packed = Pack(clips, workers=1, size=24)
    one, many = Workspace(tmp_path / "one"), Workspace(tmp_path / "many")
    expected = extract_flow.run(one, flow), pack.run(one, packed)
    for index in range(2):
        found = extract_flow.run(many, replace(flow, part=Part(index, 2)))
    for index in range(2):
        result = pack.run(many, replace(packed, part=Part(index, 2)))
        assert (result.annotations is None) == (index == 0)
    for got, wanted in zip((found, result), expected, strict=True):
        assert got.artifact.digest == wanted.artifact.digest
        assert got.artifact.recipe == wanted.artifact.recipe
        assert got.quarantined == wanted.quarantined
        assert ShardReader(got.artifact.path).digest == wanted.artifact.digest
    assert result.annotations.digest == expected[1].annotations.digest
    again = pack.run(many, replace(packed, part=Part(0, 2)))
    assert again.reused and again.annotations == result.annotations
    assert verify.run(many).ok


def test_a_dry_run_of_a_part(tmp_path: Path, clips: Path):
    plan = extract_flow.run(
        Workspace(tmp_path / "w"), ExtractFlow(clips, part=Part(1, 2), dry_run=True)
    ).plan
    assert plan["part"] == "1/2"
    assert plan["videos_of_part"] == 3
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_in_parts(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch):
    """By hand, and as torchrun starts them: what does not exit with 0 makes it end the others."""
    workspace = tmp_path / "w"
    _, share = find_part_videos(Workspace(workspace), clips, Part(0, 2))
    broken = int(not any(video.startswith("broken.mp4") for video in share.ids))
    command = ["extract-flow", clips, "--workers", 1, "--size", 32]
    first = vidssl(*command, "--shard", f"{broken}/2", workspace=workspace, code=3)
    assert "broken.mp4: it cannot be opened" in first.out
    assert f"part {broken}/2  2 videos, 1 part to go; the last one publishes flow/main" in first.out
    assert "next:" not in first.out
    found = vidssl(*command, "--shard", f"{broken}/2", "--json", workspace=workspace, code=3).json
    assert found["part"] == f"{broken}/2" and found["reused"]
    assert (found["of"], found["unfinished_parts"]) == ("flow/main", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(broken))
    again = vidssl(*command, workspace=workspace, code=0)
    assert f"part {broken}/2  was finished before" in again.out
    monkeypatch.setenv("RANK", str(1 - broken))
    last = vidssl(*command, workspace=workspace, code=0)
    assert "broken.mp4: it cannot be opened" in last.out
    assert "flow/main/v001" in last.out
    assert len(Workspace(workspace).artifacts("flow")) == 1
    bad = vidssl(*command, "--shard", "2/2", workspace=workspace, code=2)
    assert "parts count from 0" in bad.err
