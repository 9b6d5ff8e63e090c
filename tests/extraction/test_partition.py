"""Which part of a run a process is, which videos are in it, and the manifest of all videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError
from vidssl.dataset.video import find_videos
from vidssl.extraction import video_manifest
from vidssl.extraction.part_videos import find_part_videos
from vidssl.extraction.partition import Part, choose_part, divide
from vidssl.workspace.workspace import Workspace

# ── which part


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("3/8", {}, "3/8"),
        (" 0 / 2 ", {"RANK": "1", "WORLD_SIZE": "4"}, "0/2"),
        ("0/1", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, None),
        (None, {}, None),
        (None, {"RANK": "1", "WORLD_SIZE": "4"}, "1/4"),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, None),
        # An array that begins at 1 and one with a step; what Slurm sets in them.
        (None, {"ID": "1", "COUNT": "4", "MIN": "1", "MAX": "4", "STEP": "1"}, "0/4"),
        (None, {"ID": "9", "COUNT": "3", "MIN": "3", "MAX": "9", "STEP": "3"}, "2/3"),
        # A batch script has a process number and a number of tasks, and yet is one process.
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
        (None, {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}, "5/8"),
        # Two processes in each of four jobs.
        (
            None,
            {"ID": "2", "COUNT": "4", "MIN": "0", "MAX": "3"}
            | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            "5/8",
        ),
        # torchrun in an srun: torchrun's processes are those that there are.
        (
            None,
            {"RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            "3/4",
        ),
    ],
)
def test_which_part(text: str | None, variables: dict[str, str], expected: str | None):
    part = choose_part(text, slurm(variables))
    assert (None if part is None else str(part)) == expected


def slurm(variables: dict[str, str]) -> dict[str, str]:
    short = {"ID", "COUNT", "MIN", "MAX", "STEP"}
    return {f"SLURM_ARRAY_TASK_{k}" if k in short else k: v for k, v in variables.items()}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("8/8", "there is no part 8/8: parts count from 0, so 0/8 is the first"),
        ("3", r"--shard takes I/N, such as 0/8 for the first of 8 parts, not '3'"),
        ("-1/8", "--shard takes I/N"),
        ("0/0", "--shard takes I/N"),
    ],
)
def test_a_part_that_is_none(text: str, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        choose_part(text, {})


def test_a_slurm_array_with_gaps_says_nothing_of_parts():
    gaps = {"ID": "3", "COUNT": "3", "MIN": "1", "MAX": "7", "STEP": "1"}
    with pytest.raises(UsageError, match="the Slurm array has gaps"):
        choose_part(None, slurm(gaps))
    assert str(choose_part("3/8", slurm(gaps))) == "3/8"


# ── who does what


def test_by_hand():
    # 9 → 0, 7 → 1, 5 → 2, 4 → 2 (has 5), 3 → 1 (has 7), 2 → 0 (has 9; 9, 9 and 10)
    assert divide([9, 7, 5, 4, 3, 2], 3) == [0, 1, 2, 2, 1, 0]


def test_parts_take_equally_long():
    seconds = np.random.default_rng(0).lognormal(1.5, 1, 1000)
    parts = np.array(divide(seconds.tolist(), 8))
    loads = np.bincount(parts, seconds, 8)
    assert loads.max() / loads.mean() < 1.001
    assert loads.max() <= (4 / 3) * max(loads.mean(), seconds.max())


def test_unknown_lengths_count_as_the_mean():
    parts = np.array(divide([0.0] * 12, 4))
    assert np.bincount(parts).tolist() == [3, 3, 3, 3]
    assert divide([0, 10, 20, 30], 2) == divide([20, 10, 20, 30], 2)
    assert divide([], 3) == []


# ── one manifest


@contextmanager
def read_files() -> Iterator[list[str]]:
    """Returns the names of the files that are read, rather than only looked at, meanwhile."""
    names: list[str] = []

    def spy(path: Path) -> str:
        names.append(path.name)
        return original(path)

    original = video_manifest.fingerprint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_manifest, "fingerprint", spy)
        yield names


def test_the_manifest_names_videos_as_ever_and_is_made_once(tmp_path: Path, clips: Path):
    workspace = Workspace(tmp_path / "w")
    with read_files() as names:
        sources, share = find_part_videos(workspace, clips, Part(0, 2))
    assert sorted(names) == sorted(path.name for path in clips.iterdir())
    assert sources == find_videos(clips)
    with read_files() as names:
        again, other = find_part_videos(workspace, clips, Part(1, 2))
    assert names == []
    assert again == sources
    assert share.ids | other.ids == {source.id for source in sources}
    assert not share.ids & other.ids
    # 1, 0.8, 0.6, 0.4 and 0.2 seconds, and the broken one counts as their mean, 0.6
    assert share.seconds + other.seconds == pytest.approx(3.0)


def test_a_changed_file_is_read_again(tmp_path: Path):
    folder = tmp_path / "v"
    for number in range(3):
        write_video(folder / f"v{number}.mp4", moving_square(5, seed=number))
    workspace = Workspace(tmp_path / "w")
    before, _ = find_part_videos(workspace, folder, Part(0, 2))
    write_video(folder / "v1.mp4", moving_square(9, seed=9))
    write_video(folder / "new.mp4", moving_square(9, seed=8))
    (folder / "v0.mp4").unlink()
    with read_files() as names:
        after, _ = find_part_videos(workspace, folder, Part(0, 2))
    assert sorted(names) == ["new.mp4", "v1.mp4"]
    assert after == find_videos(folder)
    assert before[1].id != after[1].id


def test_a_damaged_manifest_is_made_anew_and_a_dry_run_makes_none(tmp_path: Path, clips: Path):
    workspace = Workspace(tmp_path / "w")
    dry = find_part_videos(workspace, clips, Part(0, 2), dry_run=True)
    assert not workspace.root.exists()
    assert find_part_videos(workspace, clips, Part(0, 2)) == dry
    (path,) = workspace.root.glob(".manifests/*.csv")
    for damage in (b"", b"\xff\x00", path.read_bytes().replace(b"v1.mp4,", b"v1.mp4,x")):
        path.write_bytes(damage)
        assert find_part_videos(workspace, clips, Part(0, 2)) == dry
