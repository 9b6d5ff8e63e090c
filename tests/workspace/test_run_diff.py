"""What tells runs of one name apart, and how a command says which option was another."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_workspace import small_workspace
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.stages import pretrain, status
from vidssl.stages.pretrain import PretrainOptions
from vidssl.workspace.run_diff import differences, listed, nothing_to_resume, report_other_runs
from vidssl.workspace.workspace import Workspace

RECIPE = {"seed": 0, "train": {"lr": 0.1, "epochs": 2}, "clip": {"size": 64}, "stage": "pretrain"}


def begin(workspace: Workspace, recipe: dict, name: str = "rgb") -> None:
    """Leaves a run as a kill does."""
    with workspace.open_run("checkpoint", name, recipe, {}):
        pass


def test_fields_are_named_as_users_set_them() -> None:
    other = {**RECIPE, "train": {"lr": 0.1, "epochs": 3}, "clip": {"size": 96, "stride": 2}}
    found = differences([{"recipe": RECIPE}, {"recipe": other}], [])
    assert list(map(str, found)) == ["epochs 2 → 3", "size 64 → 96", "stride none → 2"]
    assert listed(found * 2) == (
        "epochs 2 → 3, size 64 → 96, stride none → 2, epochs 2 → 3, and 2 more"
    )


def test_two_fields_of_one_name_are_told_apart() -> None:
    runs = [{"recipe": {"rgb": {"codec": c}, "flow": {"codec": c}}} for c in ("png", "webp")]
    assert [d.field for d in differences(runs, [])] == ["rgb.codec", "flow.codec"]


def test_digests_are_shown_by_labels_or_in_short(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    pack = workspace.newest("pack")
    runs = [
        {"parents": {"pack": pack.digest}, "recipe": {"videos": "a" * 64}},
        {"parents": {"pack": "b" * 64}, "recipe": {"videos": "c" * 64}},
    ]
    assert list(map(str, differences(runs, [pack]))) == [
        "pack pack/main/v001 → #bbbbbbbb",
        "videos #aaaaaaaa → #cccccccc",
    ]


def test_status_tells_unfinished_runs_of_one_name_apart(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    begin(workspace, RECIPE)
    begin(workspace, {**RECIPE, "seed": 7})
    begin(workspace, RECIPE, name="alone")
    found = {(run.name, *run.differs.items()) for run in status.run(workspace).unfinished}
    assert found == {("rgb", ("seed", "0")), ("rgb", ("seed", "7")), ("alone",)}


def test_status_tells_an_unfinished_run_from_the_finished_one_of_its_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.open_run("checkpoint", "rgb", RECIPE, {}) as run:
        run.publish("digest", {})
    begin(workspace, {**RECIPE, "seed": 7})
    (unfinished,) = status.run(workspace).unfinished
    assert unfinished.differs == {"seed": "7"}


def test_what_cannot_be_resumed_is_told_with_the_option_that_differs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    wanted = workspace.open_run("checkpoint", "rgb", RECIPE, {})
    assert "no unfinished run of checkpoint/rgb" in nothing_to_resume([wanted])
    begin(workspace, {**RECIPE, "seed": 7, "stage": "other"})
    begin(workspace, {**RECIPE, "train": {"lr": 0.2, "epochs": 2}})
    assert "was begun otherwise (lr 0.2 → 0.1)" in nothing_to_resume([wanted]), "the nearest"
    with wanted as run:
        run.publish("digest", {})
    again = workspace.open_run("checkpoint", "rgb", RECIPE, {})
    assert "checkpoint/rgb is finished" in nothing_to_resume([again])


def test_another_run_says_which_option_makes_it_one(tmp_path: Path) -> None:
    workspace, said = Workspace(tmp_path), Watching()
    with workspace.open_run("checkpoint", "rgb", RECIPE, {}) as run:
        run.publish("digest", {})
    other = workspace.open_run("checkpoint", "rgb", {**RECIPE, "seed": 7}, {})
    report_other_runs(other, said)
    assert said.said == ["not the run that made checkpoint/rgb/v001: seed 0 → 7"]
    begin(workspace, {**RECIPE, "seed": 8})
    report_other_runs(other, said)
    assert said.said[1:] == [
        "not the unfinished run of checkpoint/rgb, which is left as it is: seed 8 → 7"
    ]
    begin(workspace, {**RECIPE, "seed": 7})  # now it is begun itself
    report_other_runs(other, said)
    report_other_runs(workspace.open_run("checkpoint", "rgb", RECIPE, {}), said)
    report_other_runs(workspace.open_run("checkpoint", "fresh", RECIPE, {}), said)
    assert len(said.said) == 2


def test_pretraining_says_it(tmp_path: Path) -> None:
    workspace, said = small_workspace(tmp_path), Watching()
    small = (("epochs", 1), ("batch_size", 8), ("frames", 2), ("size", 16), ("queue", 8))
    options = PretrainOptions(recipe="cpu", settings=small, name="small")
    pretrain.run(workspace, options)
    other = PretrainOptions(recipe="cpu", settings=small, name="small", seed=3)
    with pytest.raises(VidsslError, match="is finished"):
        pretrain.run(workspace, PretrainOptions(**{**vars(options), "resume": True}))
    pretrain.run(workspace, other, said)
    assert "not the run that made checkpoint/small/v001: seed 0 → 3" in said.said
