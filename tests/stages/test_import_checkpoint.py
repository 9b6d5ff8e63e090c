"""`vidssl import`, and what can be done with the checkpoint: probe, retrieve, go on training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cli_workspace import vidssl
from published_states import state_of
from small_workspace import annotate, make_pack

from vidssl.evaluation.features import WindowProtocol, embed_videos
from vidssl.shards import ShardReader
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_tensors
from vidssl.workspace.workspace import Workspace

SMALL = ["--frames", 8, "--size", 32]


@pytest.fixture
def place(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    annotate(workspace, make_pack(workspace, [0, 1] * 5, ("rgb", "flow"), length=12))
    return tmp_path


def vicc_file(folder):
    state = state_of("vicc_r21d")
    path = folder / "vicc.pth.tar"
    torch.save({"epoch": 299, "state_dict": state, "best_loss": np.float64(1.5)}, path)
    return path


def test_imported_weights_are_probed_and_retrieved_with(place):
    workspace = place / "workspace"
    flow = ["--method", "ViCC", "--view", "flow", "--backbone", "r2plus1d", *SMALL, "--json"]
    file = vicc_file(place)
    first = vidssl("import", file, *flow, workspace=workspace).json
    assert first["artifact"] == "checkpoint/flow-vicc-published/v001"
    assert vidssl("import", file, *flow, workspace=workspace).json["reused"]
    checkpoint = Workspace(workspace).resolve("checkpoint", "flow-vicc-published")
    assert set(checkpoint.payload) == {"encoder.flow.safetensors", "method.safetensors"}
    spec = checkpoint_encoder(checkpoint, "flow").spec
    assert (spec.presentation, spec.channels, spec.project) == ("coclr", 3, 128)
    shown = vidssl("probe", "--stream", "flow", "--json", workspace=workspace).json
    assert shown["results"]["checkpoint"] == checkpoint.label
    vidssl("retrieve", "--evaluate", "--stream", "flow", workspace=workspace)
    vidssl("verify", workspace=workspace)
    vidssl("status", workspace=workspace)


def test_a_damaged_file_is_one_sentence_and_leaves_nothing(place):
    state = state_of("vicc_r21d")
    state.pop("module.encoder_q.4.bias")
    torch.save({"state_dict": state}, place / "bad.pth.tar")
    result = vidssl(
        "import", place / "bad.pth.tar", "--method", "vicc", "--backbone", "r2plus1d",
        workspace=place / "workspace", code=1,
    )  # fmt: skip
    assert "missing: head.2.bias" in result.err
    assert not (place / "workspace" / "checkpoint").exists()


@pytest.mark.parametrize("key", ["encoder_q.4.bias", "prototypes.weight"])
def test_weights_that_are_no_numbers_are_not_imported(place, key):
    state = state_of("vicc_r21d")
    state[f"module.{key}"].flatten()[0] = torch.nan
    torch.save({"state_dict": state}, place / "bad.pth.tar")
    result = vidssl(
        "import", place / "bad.pth.tar", "--method", "vicc", "--backbone", "r2plus1d", *SMALL,
        workspace=place / "workspace", code=1,
    )  # fmt: skip
    assert f"its module.{key} has values that are no finite numbers" in result.err
    assert not (place / "workspace" / "checkpoint").exists()


def test_dpc_files_without_statistics_are_measured_on_a_pack(place):
    state = {k: v for k, v in state_of("cocon_r18_imgs").items() if "running_" not in k}
    state = {k: v for k, v in state.items() if "num_batches" not in k}
    torch.save({"state_dict": state, "best_acc": np.float64(0.5)}, place / "dpc.pth.tar")
    arguments = ["import", place / "dpc.pth.tar", "--method", "dpc", "--size", 32]
    arguments += ["--frames", 2, "--blocks", 3, "--stride", 1]
    vidssl(*arguments, workspace=place / "workspace")
    workspace = Workspace(place / "workspace")
    checkpoint = workspace.resolve("checkpoint", "rgb-dpc-published")
    encoder = checkpoint_encoder(checkpoint, "rgb")
    assert encoder.backbone.bn1.num_batches_tracked == 1
    assert encoder.backbone.bn1.running_var.sub(1).abs().max() > 0.1
    assert checkpoint.parents["pack"] == workspace.resolve("pack", "main").digest
    # Windows of such an encoder are its blocks.
    with ShardReader(workspace.resolve("pack", "main").path) as reader:
        found = embed_videos(encoder, reader, [0], ["a"], WindowProtocol(hop=3))
    assert found.starts.tolist() == [0, 3, 6] and found.windows.shape == (3, 256)


def test_training_goes_on_from_imported_weights(place):
    workspace = place / "workspace"
    file = vicc_file(place)
    arguments = ["--method", "vicc", "--view", "flow", "--backbone", "r2plus1d", *SMALL]
    vidssl("import", file, *arguments, workspace=workspace)
    vidssl(
        "pretrain", "--stream", "flow", "--init-from", "flow-vicc-published", "--name", "on",
        "--backbone", "r2plus1d", "--epochs", 1, "--batch-size", 4, "--set", "frames=4",
        "--set", "size=32", "--set", "queue=8", workspace=workspace,
    )  # fmt: skip
    on = checkpoint_encoder(Workspace(workspace).resolve("checkpoint", "on"), "flow")
    assert on.spec.presentation == "coclr"


def test_imported_weights_are_student_and_partner(place):
    workspace = place / "workspace"
    small = ["--backbone", "r2plus1d", *SMALL]
    for view in ("rgb", "flow"):
        vidssl("import", vicc_file(place), "--method", "vicc", "--view", view, *small,
               workspace=workspace)  # fmt: skip
    vidssl("cotrain", "--k", 2, "--epochs", 2, "--batch-size", 4, "--set", "queue=4",
           workspace=workspace)  # fmt: skip
    made = Workspace(workspace).resolve("checkpoint", "rgb-coclr")
    found = Workspace(workspace)
    assert made.parents["pack"] == found.resolve("pack", "main").digest
    assert made.parents["partner"] == found.resolve("checkpoint", "flow-vicc-published").digest


def test_vicc_goes_on_with_the_published_prototypes(place):
    workspace = place / "workspace"
    arguments = ["--method", "vicc", "--backbone", "r2plus1d", *SMALL]
    vidssl("import", vicc_file(place), *arguments, workspace=workspace)
    vidssl(
        "pretrain", "--method", "vicc", "--init-from", "rgb-vicc-published", "--name", "on",
        "--backbone", "r2plus1d", "--epochs", 1, "--batch-size", 4, "--set", "frames=4",
        "--set", "size=32", "--set", "prototypes=30", "--set", "freeze_prototypes_epochs=1",
        "--set", "queue=0", workspace=workspace,
    )  # fmt: skip
    left = checkpoint_tensors(Workspace(workspace).resolve("checkpoint", "on"))
    published = state_of("vicc_r21d")["module.prototypes.weight"]
    torch.testing.assert_close(left["prototypes"], torch.nn.functional.normalize(published, dim=1))
