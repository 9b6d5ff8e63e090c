"""A run in parts, of videos that are made up, so that only the division is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vidssl.base.progress import SILENT, Progress
from vidssl.dataset.video import Source
from vidssl.extraction.part_videos import PartVideos
from vidssl.extraction.partition import Part, choose_part, divide
from vidssl.extraction.process_pool import VideoResult
from vidssl.extraction.shard_job import ShardJob, reused_result, run_shard_job, videos_digest
from vidssl.shards import VideoRecord
from vidssl.stages import verify
from vidssl.views import get_view
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

PARAMS = {"flow": {"codec": "png", "bound": 10.0}}
COUNT = 12


def result_of(source: Source) -> VideoResult:
    number = int(source.name.removeprefix("v"))
    if number == 5:
        return VideoResult(reason="it is odd")
    record = VideoRecord(source.id, source.name, 25.0, 3, 8, 6)
    picture = np.random.default_rng(number).integers(1, 256, (6, 8, 2), np.uint8)
    return VideoResult(record, {"flow": [get_view("flow").encode(picture, "png")] * 2})


class Stopped(Exception):
    """Stands for a kill: nothing in the code catches it."""


class Site:
    """A workspace and the videos of one run; each call is a process."""

    def __init__(self, root: Path, count: int = COUNT, shard_bytes: int = 600) -> None:
        self.workspace = Workspace(root)
        self.sources = [Source(f"v{n:02d}#0", Path(f"v{n}"), f"v{n}", "0") for n in range(count)]
        self.shard_bytes = shard_bytes
        self.worked: list[str] = []
        self.progress: Progress = SILENT

    def pool(self, dies_after: int | None) -> Callable[[Sequence[Source]], Iterator]:
        def work(sources: Sequence[Source]) -> Iterator[tuple[Source, VideoResult]]:
            for number, source in enumerate(sources):
                if number == dies_after:
                    raise Stopped
                self.worked.append(source.name)
                yield source, result_of(source)

        return work

    def share(self, part: Part) -> PartVideos:
        parts = divide([1.0] * len(self.sources), part.count)
        pairs = zip(self.sources, parts, strict=True)
        return PartVideos(part, frozenset(s.id for s, p in pairs if p == part.index), 0.0)

    @contextmanager
    def open(self, shared: bool, new: bool = False) -> Iterator:
        recipe = {"stage": "test", "videos": videos_digest(self.sources)}
        with self.workspace.open_run("flow", "main", recipe, {}, new, shared) as run:
            yield run

    def run(
        self, shard: str | None = None, dies_after: int | None = None, new: bool = False
    ) -> StageResult:
        part = choose_part(shard, {})
        with self.open(part is not None, new) as run:
            if run.finished is not None:
                return reused_result(run.finished)
            job = ShardJob("test", PARAMS, self.pool(dies_after), self.shard_bytes)
            share = None if part is None else self.share(part)
            return run_shard_job(run, job, self.sources, self.progress, share)

    def killed(self, shard: str | None, after: int) -> None:
        with pytest.raises(Stopped):
            self.run(shard, dies_after=after)


def check(site: Site, result: StageResult, whole: StageResult) -> None:
    """The artifact is the one that a single process makes, and sound, and nothing else is left."""
    assert result.artifact.digest == whole.artifact.digest
    assert result.quarantined == whole.quarantined == [("v5", "it is odd")]
    for same in ("videos", "quarantined", "views"):
        assert result.artifact.summary[same] == whole.artifact.summary[same]
    assert result.artifact.run == whole.artifact.run
    assert verify.run(site.workspace).ok
    folder = result.artifact.path
    shards = [f"shard-{n:04d}.h5" for n in range(len(list(folder.glob("shard-*"))))]
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["artifact.json", "quarantine.csv", *shards])
    left = [path.name for path in folder.parent.iterdir() if path != folder]
    assert not [name for name in left if not name.endswith("lock")], left
    assert site.workspace.unfinished() == []
