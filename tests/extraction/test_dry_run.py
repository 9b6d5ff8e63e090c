"""What a dry run says before videos are worked on: how much there is, and how much is left."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from video_files import moving_square, write_video
from watching import Watching

from vidssl.base.cores_and_memory import cores
from vidssl.extraction.partition import Part
from vidssl.stages import extract_flow, pack
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace

FRAMES = 30


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 1.2 seconds, two of them in the folder `some`."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        place = folder / ("some" if number < 2 else "more") / f"v{number}.mp4"
        write_video(place, moving_square(FRAMES, 32, 32, seed=number))
    return folder


def plan_of(workspace: Workspace, config: ExtractFlow) -> dict:
    before = sorted(workspace.root.rglob("*"))
    plan = extract_flow.run(workspace, replace(config, dry_run=True)).plan
    assert sorted(workspace.root.rglob("*")) == before
    return dict(plan)


def test_how_much_there_is_and_by_what_parameters(tmp_path: Path, videos: Path) -> None:
    config = ExtractFlow(videos, method="farneback", codec="png", name="mine")
    plan = plan_of(Workspace(tmp_path / "w"), config)
    assert (plan["makes"], plan["videos"], plan["left"]) == ("flow/mine", 4, 4)
    assert plan["minutes"] == pytest.approx(4 * FRAMES / 25 / 60, abs=0.01)
    assert plan["done_before"] == 0 and plan["workers"] == cores()
    params = plan["views"]["flow"]
    assert (params["method"], params["codec"], params["bound"]) == ("farneback", "png", 20)
    assert (params["working_size"], params["stored_size"]) == (240, 128)
    assert params["method_params"]["winsize"] > 0


def test_what_is_done_already(tmp_path: Path, videos: Path) -> None:
    workspace, config = Workspace(tmp_path / "w"), ExtractFlow(videos, workers=1)
    with pytest.raises(KeyboardInterrupt):
        extract_flow.run(workspace, config, Watching(stop_after=2))
    plan = plan_of(workspace, config)
    done = plan["done_before"]
    assert 0 < done < 4 and plan["left"] == 4 - done and plan["workers"] == 1
    label = extract_flow.run(workspace, config).artifact.label
    plan = plan_of(workspace, config)
    assert (plan["done_before"], plan["left"]) == (label, 0)
    again = plan_of(workspace, replace(config, new=True))
    assert (again["done_before"], again["left"]) == (0, 4) and "copied_from" not in again


def test_what_is_copied_of_a_folder_that_has_grown(tmp_path: Path, videos: Path) -> None:
    folder, workspace = tmp_path / "videos", Workspace(tmp_path / "w")
    shutil.copytree(videos / "some", folder / "some")
    config = ExtractFlow(folder, workers=1)
    label = extract_flow.run(workspace, config).artifact.label
    shutil.copytree(videos / "more", folder / "more")
    plan = plan_of(workspace, config)
    assert plan["copied_from"] == {label: 2}
    assert (plan["done_before"], plan["left"]) == (0, 2)


def test_a_part_and_a_pack(tmp_path: Path, videos: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    plan = plan_of(workspace, ExtractFlow(videos, part=Part(0, 2)))
    assert (plan["part"], plan["videos"], plan["videos_of_part"]) == ("0/2", 4, 2)
    assert plan["left"] == 2
    packed = pack.run(workspace, Pack(videos, dry_run=True, labels="none")).plan
    assert (packed["makes"], packed["left"], packed["labels"]) == ("pack/main", 4, "none")
    assert packed["views"]["rgb"] == {"codec": "jpeg90", "stored_size": 144}
