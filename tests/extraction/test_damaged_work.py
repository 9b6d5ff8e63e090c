"""What a run has stored and not published may be damaged: it is noticed, told and made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parted_run import COUNT, Site, Stopped, check
from seeded_damage import KINDS, damaged
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.extraction import gathering, shard_job
from vidssl.shards.written_digests import DIGESTS_FILE
from vidssl.workspace.stage_result import StageResult


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    """The run by one process, undisturbed."""
    return Site(tmp_path_factory.mktemp("whole")).run()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which a process did some, one part is finished and another was killed; read only."""
    root = tmp_path_factory.mktemp("begun") / "w"
    site = Site(root)
    site.killed(None, after=5)
    site.run("0/2")
    site.shard_bytes = 10_000
    site.killed("1/2", after=3)
    return root


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Callable[[], Site]:
    def made() -> Site:
        root = tmp_path / "w"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(begun, root)
        site = Site(root)
        site.progress = Watching()
        return site

    return made


def one(site: Site, pattern: str) -> Path:
    """The last file of a pattern below the run's folder."""
    (folder,) = (p for p in site.workspace.root.glob("flow/main/.run-*") if p.is_dir())
    return sorted(folder.glob(pattern))[-1]


def damage(path: Path, kind: str, draw: np.random.Generator) -> bool:
    """Damages a file; gives whether that changed it."""
    data = path.read_bytes()
    path.write_bytes(damaged(data, kind, draw))
    return path.read_bytes() != data


FILES = {
    "spool": "spool-*.bin",
    "journal": "spool-*.journal",
    "own shard": "shard-*.h5",
    "part's spool": "parts/0001-of-0002/spool-*.bin",
    "part's journal": "parts/0001-of-0002/spool-*.journal",
    "part's shard": "parts/0000-of-0002/shard-*.h5",
    "part.json": "parts/0000-of-0002/part.json",
    "digests": f"parts/0000-of-0002/{DIGESTS_FILE}",
}


@pytest.mark.parametrize("name", FILES)
def test_seeded_faults_are_made_good(copy, whole: StageResult, name: str):
    """Three kinds of fault in each kind of file; gone on with by one process, or by parts."""
    draw = np.random.default_rng([1, list(FILES).index(name)])
    for number, kind in enumerate(KINDS):
        site = copy()
        path = one(site, FILES[name])
        changed = damage(path, kind, draw)
        result = site.run() if number % 2 else (site.run("0/2"), site.run("1/2"))[1]
        if result.artifact is None:  # part 0 is not finished any more
            result = site.run("0/2")
        check(site, result, whole)
        said = [sentence for sentence in site.progress.said if "made again" in sentence]
        if name.endswith(("spool", "shard")) and changed:
            named = str(path.with_suffix("")) if name.endswith("spool") else str(path)
            assert any(named in sentence for sentence in said), (kind, site.progress.said)
        assert all("\n" not in sentence for sentence in said)


def test_only_what_is_damaged_is_made_again(copy, whole: StageResult):
    site = copy()
    path = one(site, FILES["part's spool"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last of its videos
    path.write_bytes(data)
    check(site, site.run(), whole)
    undamaged = copy()
    check(undamaged, undamaged.run(), whole)
    assert len(site.worked) == len(undamaged.worked) + 1
    (said,) = (s for s in site.progress.said if "made again" in s)
    assert said.startswith(f"{path} is damaged: v") and said.endswith(" is made again")


def test_a_line_of_the_journal_that_was_changed_in_its_sense(copy, whole: StageResult):
    """It is JSON as before, and its blobs are sound: only its own checksum tells."""
    site = copy()
    path = one(site, FILES["part's journal"])
    text = path.read_text()
    assert text.count('"fps": 25.0') > 1
    path.write_text(text.replace('"fps": 25.0', '"fps": 26.0', 1))
    result = site.run()
    check(site, result, whole)
    assert f"{path} is damaged: 1 video of it is made again" in site.progress.said
    with shard_job.ShardReader(result.artifact.path) as reader:
        assert set(reader.videos.fps) == {25.0}


def test_a_journal_whose_first_line_is_damaged_keeps_its_videos(copy, whole: StageResult):
    site = copy()
    path = one(site, FILES["part's journal"])
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    check(site, site.run(), whole)
    assert not [s for s in site.progress.said if "made again" in s]


def test_a_journal_line_of_version_01_is_read(copy, whole: StageResult):
    site = copy()
    path = one(site, FILES["part's journal"])
    head, *lines = path.read_text().splitlines()
    old = [{k: v for k, v in json.loads(line).items() if k != "checksum"} for line in lines]
    path.write_text("".join(f"{line}\n" for line in [head, *map(json.dumps, old)]))
    before = len(site.worked)
    check(site, site.run(), whole)
    assert not [s for s in site.progress.said if "made again" in s]
    assert len(site.worked) - before < COUNT - 6


def test_a_missing_shard_of_a_finished_part(copy, whole: StageResult):
    site = copy()
    path = one(site, FILES["part's shard"])
    path.unlink()
    check(site, site.run("1/2"), whole)
    assert f"{path} is missing: its videos are made again" in site.progress.said


def test_a_shard_of_version_01_has_no_digest_and_its_frames_are_read(copy, whole: StageResult):
    for sound in (True, False):
        site = copy()
        path = one(site, FILES["own shard"])
        (path.parent / DIGESTS_FILE).unlink()
        if not sound:
            with shard_job.ShardReader([path]) as reader:
                place = reader._shards[0].places["flow"].blobs
            data = bytearray(path.read_bytes())
            data[place + 20] ^= 4
            path.write_bytes(data)
        check(site, site.run(), whole)
        told = f"{path} is damaged: its videos are made again"
        assert (told in site.progress.said) is not sound


def test_what_was_gathered_and_not_published(copy, whole: StageResult):
    """It is damaged while only publishing is left."""
    for kind in KINDS:
        site = copy()
        with pytest.MonkeyPatch.context() as patch:

            def kill(*_: object) -> None:
                raise Stopped

            patch.setattr(gathering, "forget_digests", kill)
            site.killed(None, after=100)
        path = one(site, "shard-*.h5")
        draw = np.random.default_rng(5)
        while not damage(path, kind, draw):
            pass
        check(site, site.run(), whole)
        assert f"{path} is damaged: its videos are made again" in site.progress.said


@pytest.mark.parametrize(
    "change",
    [
        {"quarantine": [["v05#0", "v5"]]},
        {"shards": {"shard-0000.h5": {"bytes": "many", "sha256": "0" * 64}}},
        {"part": "1/2"},
        {"quarantine": [["v05#0", "v5", "another reason"]]},
        [],
        {"strange": 1},
    ],
)
def test_a_strange_manifest_of_a_part_is_one_sentence(copy, whole: StageResult, change):
    site = copy()
    path = one(site, FILES["part.json"])
    found = json.loads(path.read_text())
    path.write_text(json.dumps(change if isinstance(change, list) else found | change))
    check(site, site.run(), whole)
    (said,) = (s for s in site.progress.said if "part.json" in s)
    assert f"{path} is damaged: " in said and said.endswith("tries again what it had left out")


def test_a_manifest_of_version_01_has_no_checksum(copy, whole: StageResult):
    site = copy()
    path = one(site, FILES["part.json"])
    found = json.loads(path.read_text())
    del found["checksum"]
    path.write_text(json.dumps(found))
    check(site, site.run(), whole)
    assert not [s for s in site.progress.said if "damaged" in s]


def test_a_video_that_is_none_of_the_run(copy):
    site = copy()
    with site.open(shared=False) as run:
        job = shard_job.ShardJob(
            "test", {"flow": {"codec": "png", "bound": 10.0}}, site.pool(None), 600
        )
        some = site.sources[1:]
        with pytest.raises(VidsslError, match="which is no video of this run"):
            shard_job.run_shard_job(run, job, some, site.progress)


def test_a_pipe_in_place_of_a_file_is_never_waited_for(copy, begun: Path, whole: StageResult):
    """It ends with one sentence that names it, or the same is made from what else is there."""
    (folder,) = (p for p in begun.glob("flow/main/.run-*") if p.is_dir())
    files = [path.relative_to(begun) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 6
    for file in files:
        site = copy()
        (site.workspace.root / file).unlink()
        os.mkfifo(site.workspace.root / file)
        try:
            made = site.run()
        except VidsslError as error:
            assert str(file) in str(error), (file, error)
        else:
            assert made.artifact.digest == whole.artifact.digest, file
