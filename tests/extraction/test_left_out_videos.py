"""Videos that were left out are taken up again, without doing the others again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import VideoBounds
from vidssl.extraction import pool, process_pool
from vidssl.extraction.partition import Part
from vidssl.extraction.process_pool import VideoFunction, VideoResult
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow, pack, verify
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that were worked on, in this process: workers start slowly."""
    names: list[str] = []

    def process_here(
        sources: Sequence[Source], function: VideoFunction, workers: int | None
    ) -> Iterator[tuple[Source, VideoResult]]:
        for source in sources:
            names.append(source.name)
            yield source, process_pool.process_video(function, source)

    monkeypatch.setattr(pool, "process_videos", process_here)
    return names


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Four videos, of 4, 6, 8 and 10 frames."""
    for number in range(4):
        clip = moving_square(4 + 2 * number, seed=number)
        write_video(tmp_path / "v" / f"v{number}.mp4", clip)
    return tmp_path / "v"


SHORT = VideoBounds(max_frames=7)


def test_a_finished_run_is_taken_up(tmp_path: Path, videos: Path, worked: list[str]):
    workspace = Workspace(tmp_path / "w")
    config = ExtractFlow(videos, method="dis", bounds=SHORT)
    first = extract_flow.run(workspace, config)
    reason = "it has more than the 7 frames of --max-frames"
    assert first.quarantined == [("v2.mp4", reason), ("v3.mp4", reason)]
    worked.clear()
    as_before = extract_flow.run(workspace, replace(config, bounds=VideoBounds()))
    assert as_before.reused and worked == [], "bounds are no part of a run's identity"
    again = replace(config, bounds=VideoBounds(), retry_quarantined=True)
    second = extract_flow.run(workspace, again)
    assert worked == ["v2.mp4", "v3.mp4"]
    assert second.artifact.label == "flow/main/v002" and second.quarantined == []
    assert second.artifact.run == first.artifact.run
    assert verify.run(workspace).ok
    whole = extract_flow.run(Workspace(tmp_path / "whole"), replace(config, bounds=VideoBounds()))
    assert second.artifact.digest == whole.artifact.digest
    assert second.artifact.run == whole.artifact.run
    worked.clear()
    third = extract_flow.run(workspace, again)
    assert third.reused and third.artifact == second.artifact and worked == []


def test_what_cannot_be_used_now_either_makes_no_version(
    tmp_path: Path, videos: Path, worked: list[str]
):
    workspace = Workspace(tmp_path / "w")
    config = Pack(videos, bounds=SHORT, labels="none")
    first = pack.run(workspace, config)
    worked.clear()
    again = pack.run(workspace, replace(config, retry_quarantined=True))
    assert worked == ["v2.mp4", "v3.mp4"]
    assert again.in_vain and again.artifact == first.artifact
    assert again.quarantined == first.quarantined and again.annotations == first.annotations
    assert len(workspace.artifacts("pack")) == 1 and workspace.unfinished() == []
    assert not [p for p in (workspace.root / "pack/main").iterdir() if "run" in p.name]


def test_a_dry_run_says_what_would_be_done(tmp_path: Path, videos: Path, worked: list[str]):
    workspace = Workspace(tmp_path / "w")
    pack.run(workspace, Pack(videos, bounds=SHORT))
    plan = pack.run(workspace, Pack(videos, retry_quarantined=True, dry_run=True)).plan
    assert plan["copied_from"] == {"pack/main/v001": 2} and plan["left"] == 2


def test_finished_parts_are_taken_up(tmp_path: Path, videos: Path, worked: list[str]):
    """By their own process, and by one process for all; then the artifact is finished."""
    workspace = Workspace(tmp_path / "w")
    config = ExtractFlow(videos, method="dis", bounds=VideoBounds(max_frames=5))
    first = extract_flow.run(workspace, replace(config, part=Part(0, 2)))
    assert first.quarantined
    worked.clear()
    retry = replace(config, bounds=VideoBounds(), retry_quarantined=True)
    second = extract_flow.run(workspace, replace(retry, part=Part(0, 2)))
    assert sorted(worked) == sorted(name for name, _ in first.quarantined)
    assert second.quarantined == [] and not second.reused
    extract_flow.run(workspace, replace(config, part=Part(1, 2)))
    assert len(ShardReader(workspace.newest("flow").path)) < 4
    worked.clear()
    for index in range(2):
        last = extract_flow.run(workspace, replace(retry, part=Part(index, 2)))
    assert len(ShardReader(last.artifact.path)) == 4 and last.quarantined == []
    assert last.artifact.version == 2 and verify.run(workspace).ok


def test_one_process_takes_up_what_parts_left_out(tmp_path: Path, videos: Path, worked: list[str]):
    workspace = Workspace(tmp_path / "w")
    config = ExtractFlow(videos, method="dis", bounds=VideoBounds(max_frames=5))
    extract_flow.run(workspace, replace(config, part=Part(0, 2)))
    result = extract_flow.run(
        workspace, replace(config, bounds=VideoBounds(), retry_quarantined=True)
    )
    assert result.quarantined == [] and result.artifact.version == 1
    assert len(ShardReader(result.artifact.path)) == 4


def test_new_and_retry_contradict_each_other(tmp_path: Path, videos: Path):
    config = Pack(videos, new=True, retry_quarantined=True)
    with pytest.raises(UsageError, match="--new does all videos again, also those"):
        pack.run(Workspace(tmp_path / "w"), config)


def test_the_command_line(tmp_path: Path, videos: Path, worked: list[str]):
    flow = ["extract-flow", videos, "--method", "dis"]
    w = tmp_path / "w"
    assert (
        "v3.mp4: it has more than the 9 frames of --max-frames"
        in vidssl(*flow, "--max-frames", 9, workspace=w, code=3).out
    )
    told = " ".join(vidssl(*flow, workspace=w, code=3).out.split())
    assert "nothing to do; 1 video left out: --retry-quarantined tries again" in told
    in_vain = vidssl(*flow, "--max-pixels", 9, "--retry-quarantined", workspace=w, code=3).out
    assert "64x48 pixels, and --max-pixels allows 9" in in_vain or "than the 9 pixels" in in_vain
    assert "as before: of 1 video left out not one can be used now" in " ".join(in_vain.split())
    assert "flow/main/v002" in vidssl(*flow, "--retry-quarantined", workspace=w, code=0).out
    wrong = vidssl("pack", videos, "--max-stall", 0, workspace=w, code=2).err
    assert "--max-stall must be above 0" in " ".join(wrong.split())
