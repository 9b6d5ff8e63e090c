"""Whether an encoder has seen test videos: by itself, or by any encoder that it learnt from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.backbones import Encoder
from vidssl.evaluation.leakage import leakage, trained_ids
from vidssl.shards import ShardReader
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, save_encoder, weights_digest
from vidssl.workspace.parent_roles import start_parents, trained_before
from vidssl.workspace.workspace import Workspace

VIDEOS = 12
TESTED = range(3)  # videos of the test part


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A pack and four encoders; of these only the one called `leaky` has seen test videos."""
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [number % 2 for number in range(VIDEOS)])
    clean = ["test" if number in TESTED else "train" for number in range(VIDEOS)]
    other = ["train" if number in TESTED else "test" for number in range(VIDEOS)]
    table = annotate(workspace, pack, splits={"clean": clean, "other": other})
    for seed, name in enumerate(("first", "second", "third")):
        make_checkpoint(workspace, pack, table, split="clean", seed=seed, name=name)
    make_checkpoint(workspace, pack, table, split="other", seed=3, name="leaky")
    return workspace


def trained_from(workspace: Workspace, roles: dict[str, Artifact]) -> Artifact:
    """Publishes a checkpoint that was trained on the clean split and has these parents."""
    torch.manual_seed(len(roles))
    first = next(iter(roles.values()))
    encoder = Encoder(checkpoint_encoder(first, "rgb").spec).eval()
    parents = {name: workspace.newest(name) for name in ("pack", "annotations")} | roles
    recipe = {"stage": "cotrain", "stream": "rgb", "split": "clean", "seed": 0}
    with workspace.open_run("checkpoint", "joint", recipe, parents) as run:
        save_encoder(encoder, run.folder)
        return run.publish(weights_digest({"rgb": encoder}), {"method": "cocon"})


def ids_to_test_on(workspace: Workspace) -> list[str]:
    reader = ShardReader(workspace.newest("pack").path)
    return [reader.video_id(video) for video in TESTED]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_every_start_of_a_joint_training_counts(workspace, place):
    names = ["first", "second", "third"]
    names.insert(place, "leaky")
    starts = [workspace.resolve("checkpoint", name) for name in names]
    roles = start_parents(starts)
    assert list(roles) == ["init", "init2", "init3", "init4"]
    (note,) = leakage(workspace, trained_from(workspace, roles), ids_to_test_on(workspace))
    assert note.startswith("3 of the 3 test videos were in the training set of checkpoint/joint")


@pytest.mark.parametrize("role", ["student", "partner"])
def test_who_taught_an_encoder_counts(workspace, role):
    made = trained_from(workspace, {role: workspace.resolve("checkpoint", "leaky")})
    assert len(trained_ids(workspace, made)) == VIDEOS
    assert leakage(workspace, made, ids_to_test_on(workspace))


def test_nothing_is_said_of_encoders_that_saw_training_videos_alone(workspace):
    starts = [workspace.resolve("checkpoint", name) for name in ("first", "second", "third")]
    made = trained_from(workspace, start_parents(starts))
    assert leakage(workspace, made, ids_to_test_on(workspace)) == []


def test_a_start_that_is_gone_makes_it_unknown(workspace):
    gone = workspace.resolve("checkpoint", "third")
    starts = [workspace.resolve("checkpoint", name) for name in ("first", "second")]
    made = trained_from(workspace, start_parents([*starts, gone]))
    shutil.rmtree(gone.path)
    (note,) = leakage(workspace, made, ids_to_test_on(workspace))
    assert "not known here any more" in note


def test_a_checkpoint_of_several_views_is_one_parent():
    roles = {"pack": "p", "init": "a", "init2": "b", "init10": "c", "partner": "d", "initial": "e"}
    assert trained_before(roles) == ["a", "b", "c", "d"]
