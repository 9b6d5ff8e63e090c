"""Exported encoders give what the encoder gives, and their cards say how to feed them."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from cli_workspace import vidssl
from methods import encoder
from small_workspace import annotate, make_pack

from vidssl.base.errors import VidsslError
from vidssl.views import get_view
from vidssl.workspace.checkpoints import (
    checkpoint_encoder,
    load_encoder,
    save_encoder,
    weights_digest,
)
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "workspace"
    workspace = Workspace(folder)
    pack = make_pack(workspace, [0, 1], ("rgb", "flow"))
    annotate(workspace, pack)
    for view, blocks in (("rgb", 1), ("flow", 3)):
        made = encoder(view, blocks=blocks).eval()
        recipe = {"stage": "pretrain", "stream": view, "method_name": "infonce"}
        with workspace.open_run("checkpoint", f"{view}-made", recipe, {"pack": pack}) as run:
            save_encoder(made, run.folder)
            run.publish(weights_digest({view: made}), {"method": "infonce"})
    return folder


def export(place, out, stream, form):
    words = ["export", "--stream", stream, "--format", form, "--out", out, "--json"]
    return vidssl(*words, workspace=place).json


def input_for(spec, batch):
    blocks = (spec.blocks,) if spec.blocks > 1 else ()
    shape = (batch, *blocks, spec.channels, spec.frames, spec.size, spec.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def wanted(made, x):
    if made.spec.blocks > 1:
        return [made.embed(x)]
    return [made.pool(x), made.project(x)]


def made_in(place, stream):
    return checkpoint_encoder(Workspace(place).resolve("checkpoint", f"{stream}-made"), stream)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_safetensors_is_the_encoder_itself(place, tmp_path, stream):
    card = export(place, tmp_path / "out", stream, "safetensors")["card"]
    again, made = load_encoder(tmp_path / "out" / card["file"]), made_in(place, stream)
    assert again.spec == made.spec
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == card
    checkpoint = Workspace(place).resolve("checkpoint", f"{stream}-made")
    assert card["digest"] == checkpoint.digest and card["method"] == "infonce"
    assert card["frames"] == made.spec.window
    assert card["input"]["normalisation"] == get_view(stream).native


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_torch_export_agrees(place, tmp_path, stream):
    card = export(place, tmp_path / "out", stream, "torch-export")["card"]
    program = torch.export.load(tmp_path / "out" / card["file"]).module()
    made = made_in(place, stream)
    for batch in (1, 3):
        x = input_for(made.spec, batch)
        torch.testing.assert_close(list(program(x)), wanted(made, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_onnx_agrees_under_onnxruntime(place, tmp_path, stream):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    card = export(place, tmp_path / "out", stream, "onnx")["card"]
    session = runtime.InferenceSession(
        tmp_path / "out" / card["file"], providers=["CPUExecutionProvider"]
    )
    assert [o.name for o in session.get_outputs()] == list(card["outputs"])
    made = made_in(place, stream)
    for batch in (1, 3):
        x = input_for(made.spec, batch)
        got = [torch.from_numpy(y) for y in session.run(None, {"clip": x.numpy()})]
        torch.testing.assert_close(got, wanted(made, x), atol=1e-4, rtol=1e-4)


def test_a_missing_extra_is_one_sentence(place, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name)
    )
    words = ["export", "--format", "onnx", "--out", tmp_path / "out"]
    result = vidssl(*words, workspace=place, code=1)
    assert result.err.startswith("vidssl: export to ONNX needs onnx"), "before anything else"
    assert "vidssl[export]" in result.err and not (tmp_path / "out").exists()


def test_what_a_full_disk_left_of_an_export_is_not_in_its_way(place, tmp_path, monkeypatch):
    def full(path, data):
        raise VidsslError("the disk is full")

    words = ["export", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr("vidssl.stages.export.write_json", full)
        assert "the disk is full" in vidssl(*words, workspace=place, code=1).err
    assert not (tmp_path / "out").exists()
    vidssl(*words, workspace=place)


def test_what_cannot_be_exported_is_one_sentence(place, tmp_path):
    words = ["export", "--out", tmp_path]
    assert "is there already" in vidssl(*words, workspace=place, code=1).err
    result = vidssl("export", "--format", "onxx", workspace=place, code=2)
    assert "did you mean onnx" in result.err
