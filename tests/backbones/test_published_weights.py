"""Published checkpoints: every tensor finds its place, and outputs are the published code's.

tests/data/published.npz holds names and shapes of published state_dicts and what the published
networks give for weights filled in by rule (CPU, float32, eval mode).
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from published_states import GOLDEN, META, state_of

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.backbones.dpc_context import unit_channels
from vidssl.backbones.published_weights import import_state, projection_width, read_published
from vidssl.base.errors import UsageError, VidsslError
from vidssl.stages import import_checkpoint
from vidssl.stages.import_checkpoint import ImportOptions
from vidssl.workspace.workspace import Workspace

TOLERANCE = 1e-5
CLIP = EncoderSpec("rgb", "s3d", 3, frames=32, stride=1, size=128)
BLOCKS = EncoderSpec(
    "rgb", "r2d3d_18", 3, frames=5, stride=3, size=64, project=None, blocks=8, context="gru"
)


def input_of(model: str) -> torch.Tensor:
    draw = np.random.default_rng(META[model]["input_seed"])
    return torch.from_numpy(draw.standard_normal(META[model]["input_shape"]).astype(np.float32))


def assert_agrees(got: torch.Tensor, name: str) -> None:
    wanted = GOLDEN[name]
    assert got.shape == wanted.shape
    assert np.abs(got.numpy() - wanted).max() <= TOLERANCE * np.abs(wanted).max(), name


@torch.no_grad()
def test_coclr_s3d():
    state = state_of("coclr_s3d")
    imported = import_state(state, "infonce", CLIP)
    assert [note.split(" (")[0] for note in imported.notes] == [
        "key encoder left out", "queue left out",
        "462 aliases left out: second names of tensors that were taken",
    ]  # fmt: skip
    x = input_of("coclr_s3d")
    assert_agrees(imported.encoder.pool(x), "coclr_s3d.pooled")
    assert_agrees(imported.encoder.project(x), "coclr_s3d.embedding")


@torch.no_grad()
def test_vicc_r2plus1d():
    state = state_of("vicc_r21d")
    imported = import_state(state, "vicc", replace(CLIP, backbone="r2plus1d"))
    assert imported.notes == [] and projection_width(state, "vicc") == 128
    x = input_of("vicc_r21d")
    z_BP = imported.encoder.project(x)
    assert_agrees(imported.encoder.pool(x), "vicc_r21d.pooled")
    assert_agrees(z_BP, "vicc_r21d.embedding")
    assert_agrees(z_BP @ imported.tensors["prototypes"].T, "vicc_r21d.prototype_scores")


@torch.no_grad()
def test_cocon_r2d3d_18():
    imported = import_state(state_of("cocon_r18_imgs"), "cocon", BLOCKS)
    assert [note.split(" left")[0] for note in imported.notes] == ["6 aliases"]
    encoder = imported.encoder
    z = unit_channels(encoder.block_maps(input_of("cocon_r18_imgs")), 2)
    foretold = encoder.context.rollout(z[:, :5], 3)
    assert_agrees(z, "cocon_r18_imgs.z")
    assert_agrees(z[:, 5:], "cocon_r18_imgs.target")
    assert_agrees(foretold.pred, "cocon_r18_imgs.pred")
    assert_agrees(foretold.hidden, "cocon_r18_imgs.hidden")


# ── every layout ─────────────────────────────────────────────────────────────────────────────


def under(prefix: str, state: dict[str, torch.Tensor], old: str = "encoder_q.") -> dict:
    """Returns what lies under one prefix of a state_dict under another."""
    return {prefix + k.removeprefix(old): v for k, v in state.items() if k.startswith(old)}


@cache
def moco() -> dict[str, torch.Tensor]:
    return {k.removeprefix("module."): v for k, v in state_of("coclr_s3d").items()}


@cache
def whole_encoder() -> Encoder:
    return import_state(moco(), "infonce", CLIP).encoder


def query() -> dict[str, torch.Tensor]:
    return {k: v for k, v in moco().items() if k.startswith("encoder_q.")}


LABELS = {"queue_label": torch.zeros(2048)}
PARTNER = LABELS | {"queue_second": torch.zeros(128, 2048), "queue_vname": torch.zeros(2048)}
PROTOTYPES = {"prototypes.weight": torch.randn(300, 128)}
BATCHNORM = {
    f"final_bn.{name}": torch.zeros(() if name.startswith("num") else 1024)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
LAYER = {"final_fc.0.weight": torch.zeros(101, 1024), "final_fc.0.bias": torch.zeros(101)}
DROPOUT_LAYER = {key.replace(".0.", ".1."): value for key, value in LAYER.items()}
LAYOUTS = {  # method, state, keys in the published file, what is said to be left out
    "infonce": ("infonce", moco, 1858, ["key encoder", "queue"]),
    "ubernce": ("ubernce", lambda: moco() | LABELS, 1859, ["key encoder", "queue"]),
    "coclr": (
        "coclr",
        lambda: moco() | under("sampler.", moco()) | PARTNER,
        2789,
        ["key encoder", "frozen partner of the other stream", "queue"],
    ),
    "vicc": ("vicc", lambda: query() | PROTOTYPES, 929, []),
    "vicc across streams": (
        "vicc",
        lambda: query() | under("second.", moco()) | PROTOTYPES,
        1857,
        ["frozen partner of the other stream"],
    ),
    "linear probe": (
        "coclr",
        lambda: under("backbone.", moco(), "encoder_q.0.") | BATCHNORM | LAYER,
        931,
        ["BatchNorm of a classifier", "classifier"],
    ),
    "finetuned": (
        "vicc",
        lambda: under("backbone.", moco(), "encoder_q.0.") | DROPOUT_LAYER,
        926,
        ["classifier"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_encoder_that_is_in_it(name):
    method, make, keys, left_out = LAYOUTS[name]
    state = {f"module.{key}": value for key, value in make().items()}
    assert len(state) == keys
    spec = replace(CLIP, project=projection_width(state, method))
    assert spec.project == (None if name in ("linear probe", "finetuned") else 128)
    imported = import_state(state, method, spec)
    notes = [note.split(" left out")[0] for note in imported.notes]
    assert notes == [*left_out, "462 aliases"]
    assert imported.tensors.keys() == ({"prototypes"} if name.startswith("vicc") else set())
    wanted = whole_encoder().backbone.state_dict()
    got = imported.encoder.backbone.state_dict()
    assert all(value.equal(got[name]) for name, value in wanted.items())


def test_a_dense_classifier_gives_its_backbone():
    state = {k: v for k, v in state_of("cocon_r18_imgs").items() if "network_pred" not in k}
    state |= {key: torch.zeros(256) for key in ("module.final_bn.weight", "module.final_bn.bias")}
    state |= {"module.final_fc.1.weight": torch.zeros(101, 256)}
    imported = import_state(state, "cocon", replace(BLOCKS, context=None))
    assert [note.split(" left out")[0] for note in imported.notes][:3] == [
        "BatchNorm of a classifier", "classifier",
        "context of a classifier, which foretells nothing",
    ]  # fmt: skip
    whole = import_state(state_of("cocon_r18_imgs"), "cocon", BLOCKS).encoder
    x = input_of("cocon_r18_imgs")
    torch.testing.assert_close(imported.encoder.block_maps(x), whole.block_maps(x))


# ── every key accounted for ──────────────────────────────────────────────────────────────────


def test_a_missing_a_left_over_and_a_misshapen_tensor_are_named():
    spec = replace(CLIP, backbone="r2plus1d")
    state = state_of("vicc_r21d")
    one = "module.encoder_q.0.conv3.block1.conv2.bn.weight"
    with pytest.raises(VidsslError, match=r"missing: backbone\.blocks\.1\.conv2\.norm\.weight$"):
        import_state({k: v for k, v in state.items() if k != one}, "vicc", spec)
    with pytest.raises(VidsslError, match=r"left over: final_fc\.weight$"):
        import_state(state | {"module.final_fc.weight": torch.zeros(2)}, "vicc", spec)
    with pytest.raises(VidsslError, match=r"another shape: encoder_q.*\(\[3\], not \[288\]\)$"):
        import_state(state | {one: torch.zeros(3)}, "vicc", spec)
    with pytest.raises(VidsslError, match=r"left over: encoder_q\.0\.conv1.* and 143 more"):
        import_state(state, "vicc", CLIP)


def test_an_alias_must_be_what_it_is_a_second_name_of():
    state = state_of("cocon_r18_imgs")
    state["module.agg.cell_list.0.out_gate.bias"] += 1
    with pytest.raises(VidsslError, match="should be a second name"):
        import_state(state, "cocon", BLOCKS)


def test_files_without_batchnorm_statistics_are_told():
    state = state_of("cocon_r18_imgs")
    bare = {k: v for k, v in state.items() if "running_" not in k and "num_batches" not in k}
    imported = import_state(bare, "dpc", BLOCKS)
    assert imported.lacks_statistics and "BatchNorm statistics" in imported.notes[-1]


def test_an_unknown_method_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean coclr"):
        import_state({}, "coclrr", CLIP)


# ── files ────────────────────────────────────────────────────────────────────────────────────


def published_file(path: Path, **more: object) -> Path:
    torch.save({"epoch": 3, "state_dict": {"module.a": torch.ones(2)}, **more}, path)
    return path


@pytest.mark.parametrize("number", [np.float64(61.5), np.float32(0.5), np.int64(7), np.bool_(True)])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_numpy_scalars_of_old_files_are_read(tmp_path, number, numpy_1):
    path = published_file(tmp_path / "new.pth.tar", best_acc=number)
    if numpy_1:
        path = as_numpy_1_wrote_it(path, tmp_path / "old.pth.tar")
    whole = read_published(path)
    assert whole["best_acc"] == number and type(whole["best_acc"]) in (int, float, bool)
    assert whole["state_dict"]["module.a"].equal(torch.ones(2))


def as_numpy_1_wrote_it(path: Path, there: Path) -> Path:
    """Returns the same file with the names of NumPy 1 in its pickle."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(there, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(item, data)
    return there


def test_the_format_before_zip_files_is_read(tmp_path):
    path = tmp_path / "legacy.pth.tar"
    whole = {"state_dict": {"a": torch.ones(2)}, "best_acc": np.float64(3)}
    torch.save(whole, path, _use_new_zipfile_serialization=False)
    assert read_published(path)["best_acc"] == 3


class Trap:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize("bad", [Trap(), np.array([1, None], dtype=object)])
def test_a_file_that_needs_code_is_refused(tmp_path, bad, capsys):
    path = published_file(tmp_path / "bad.pth.tar", best_acc=bad)
    with pytest.raises(VidsslError, match="without running code"):
        read_published(path)
    assert "code was run" not in capsys.readouterr().out


def test_other_files_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(VidsslError, match="there is no file"):
        read_published(tmp_path / "none.pth.tar")
    for text in ("no checkpoint", "echo 1\n", ""):
        (tmp_path / "text.pth.tar").write_text(text)
        with pytest.raises(VidsslError, match="is no PyTorch checkpoint"):
            read_published(tmp_path / "text.pth.tar")
    (tmp_path / "noise.pth.tar").write_bytes(b"\x80\x02ende.")
    with pytest.raises(VidsslError, match=r"noise.pth.tar cannot be read: "):
        read_published(tmp_path / "noise.pth.tar")
    whole = published_file(tmp_path / "cut.pth.tar").read_bytes()
    (tmp_path / "cut.pth.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VidsslError, match=r"cut.pth.tar cannot be read: "):
        read_published(tmp_path / "cut.pth.tar")
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(VidsslError, match="no state_dict"):
        read_published(tmp_path / "other.pth")


HEAD = "module.encoder_q.4.weight"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({HEAD: torch.zeros(1).expand(10**12)}, "beyond its stored values"),
        ({HEAD: torch.full((2, 3), float("nan"))}, "no finite numbers"),
        ({HEAD: [1.0]}, "is no tensor, but list"),
        ({3: torch.zeros(1)}, "it has a key 3"),
        ({}, "holds no state_dict"),
    ],
)
def test_an_odd_state_dict_is_refused_where_it_is_read(tmp_path, state, says):
    torch.save({"state_dict": state}, tmp_path / "odd.pth.tar")
    with pytest.raises(VidsslError, match=f"odd.pth.tar .*{says}"):
        read_published(tmp_path / "odd.pth.tar")


@pytest.mark.parametrize("shape", [(), (128,), (10**6, 1), (128, 3, 1, 1, 1)])
def test_a_head_of_another_shape_builds_no_encoder(tmp_path, shape):
    torch.save({"state_dict": {HEAD: torch.zeros(shape)}}, tmp_path / "odd.pth.tar")
    options = ImportOptions(tmp_path / "odd.pth.tar", "infonce", backbone="tiny", dry_run=True)
    with pytest.raises(VidsslError, match=r"odd\.pth\.tar|project must be"):
        import_checkpoint.run(Workspace(tmp_path / "w"), options)


def test_impossible_clips_are_told_before_anything_is_built(tmp_path):
    torch.save({"state_dict": {HEAD: torch.zeros(8, 8)}}, tmp_path / "a.pth.tar")
    options = ImportOptions(tmp_path / "a.pth.tar", "infonce", backbone="tiny", frames=10**9)
    with pytest.raises(UsageError, match="frames must be at most 10000, not 1000000000"):
        import_checkpoint.run(Workspace(tmp_path / "w"), options)
