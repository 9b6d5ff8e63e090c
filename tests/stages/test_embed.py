"""Vectors of video files: those of a pack's features, in every format, and nothing lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_workspace import vidssl as command
from small_workspace import make_checkpoint
from video_files import moving_square, write_video
from watching import Watching

import vidssl
from vidssl.base.errors import Interrupted, UsageError, VidsslError
from vidssl.evaluation.evaluated_encoders import find_subject
from vidssl.evaluation.feature_cache import features_of
from vidssl.evaluation.features import Features, WindowProtocol
from vidssl.retrieval.video_encoder import VideoEncoder
from vidssl.stages import embed, export, extract_flow, pack
from vidssl.stages.embed import EmbedFiles, EncoderOptions
from vidssl.stages.export import ExportOptions
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four real files in two folders, packed with flow, and an encoder of either stream."""
    root = tmp_path_factory.mktemp("embed")
    for number in range(4):
        clip = moving_square(18 + 3 * number, 80, 60, step=(number % 3, 1), seed=number)
        write_video(root / "videos" / f"class{number % 2}" / f"v{number}.mp4", clip)
    workspace = Workspace(root / "ws")
    extract_flow.run(workspace, ExtractFlow(root / "videos", size=48, stored=36, workers=1))
    made = pack.run(workspace, Pack(root / "videos", size=40, workers=1))
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, made.artifact, made.annotations, stream)
    return root


def features_of_pack(packed: Path, stream: str) -> Features:
    workspace = Workspace(packed / "ws")
    subject = find_subject(workspace, None, stream)
    return features_of(workspace, subject, WindowProtocol(), "cpu")[1]


def run(packed: Path, out: Path, stream: str = "rgb", **more) -> embed.EmbedResult:
    options = EncoderOptions(stream=stream, device="cpu")
    return embed.run(
        Workspace(packed / "ws"), EmbedFiles((packed / "videos",), out, options, **more)
    )


def table_of(path: Path) -> tuple[list[list[str]], np.ndarray]:
    """Returns (path, begin, end, label) as text, and the vectors, of a .csv."""
    header, *lines = csv.reader(path.open())
    assert header[:4] == ["path", "begin", "end", "label"] and header[4] == "v0"
    return [line[:4] for line in lines], np.array([line[4:] for line in lines], np.float32)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_the_vectors_are_those_of_the_features(packed: Path, tmp_path: Path, stream: str) -> None:
    wanted = features_of_pack(packed, stream)
    run(packed, tmp_path / "videos.csv", stream)
    rows, vectors = table_of(tmp_path / "videos.csv")
    names = [os.path.relpath(row[0], packed / "videos") for row in rows]
    assert names == [i.rpartition("#")[0] for i in wanted.ids]
    np.testing.assert_allclose(vectors, wanted.video_means(), atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 1e-3  # not all videos have one vector
    run(packed, tmp_path / "windows.csv", stream, windows=True)
    rows, vectors = table_of(tmp_path / "windows.csv")
    np.testing.assert_allclose(vectors, wanted.windows, rtol=1e-4, atol=1e-5)
    assert [float(row[1]) for row in rows] == [round(s / 25, 3) for s in wanted.starts]


def test_every_format_has_the_same_rows(packed: Path, tmp_path: Path) -> None:
    made = {s: run(packed, tmp_path / f"one{s}", windows=True) for s in (".h5", ".npy")}
    run(packed, tmp_path / "two.csv", windows=True)
    rows, vectors = table_of(tmp_path / "two.csv")
    assert {row[3] for row in rows} == {"class0", "class1"}
    assert all(float(row[1]) < float(row[2]) for row in rows)
    assert made[".npy"].files == [tmp_path / "one.npy", tmp_path / "one.csv"]
    assert np.array_equal(np.load(tmp_path / "one.npy"), vectors)
    assert [line[:4] for line in list(csv.reader((tmp_path / "one.csv").open()))[1:]] == rows
    with h5py.File(tmp_path / "one.h5") as file:
        assert np.array_equal(file["vector"][()], vectors)
        assert [p.decode() for p in file["path"]] == [row[0] for row in rows]
        assert file["end"][()].tolist() == [float(row[2]) for row in rows]
        about = json.loads(file.attrs["about"])
    assert about["preprocessing"]["stored_frames"]["stored_size"] == 40
    assert about["rows"] == "windows" and about["width"] == vectors.shape[1]


def test_parquet_has_the_same_rows(packed: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run(packed, tmp_path / "one.parquet")
    run(packed, tmp_path / "one.csv")
    rows, vectors = table_of(tmp_path / "one.csv")
    table = parquet.read_table(tmp_path / "one.parquet")
    assert table.column_names == ["path", "begin", "end", "label", "vector"]
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert table["label"].to_pylist() == [row[3] for row in rows]
    assert json.loads(table.schema.metadata[b"vidssl"])["rows"] == "videos"


def test_from_python_in_the_order_of_the_paths(packed: Path) -> None:
    wanted = features_of_pack(packed, "rgb").video_means()
    files = [packed / "videos/class1/v3.mp4", packed / "videos/class0/v0.mp4"]
    encoder = vidssl.load_encoder(workspace=packed / "ws", device="cpu")
    found = vidssl.embed(files, encoder)
    np.testing.assert_allclose(found, wanted[[3, 0]], atol=1e-5)
    assert np.array_equal(vidssl.embed(files[0], encoder), found[:1])
    assert encoder.preprocessing["view"] == "rgb" and encoder.dim == found.shape[1]
    assert encoder.axes["videos"] == "video, feature"


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_an_exported_encoder_needs_no_workspace(packed: Path, tmp_path: Path, stream: str) -> None:
    out = tmp_path / "encoder"
    export.run(Workspace(packed / "ws"), ExportOptions("safetensors", None, stream, out))
    (file,) = out.glob("*.safetensors")
    wanted = features_of_pack(packed, stream).video_means()
    for named in (out, file):
        found = vidssl.embed(packed / "videos", named, workspace=tmp_path / "none", device="cpu")
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    # Without the card, frames are stored as by default, and a note says so.
    (out / "card.json").unlink()
    alone = vidssl.load_encoder(file, workspace=tmp_path / "none", device="cpu")
    assert "does not say how its frames were stored" in alone.notes[0]
    assert len(alone.embed(packed / "videos/class0/v0.mp4").windows) > 0


def test_a_damaged_video_is_left_out_and_named(packed: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    good, out = packed / "videos/class0/v0.mp4", tmp_path / "v.h5"
    words = ["embed", bad, good, "--out", out, "--device", "cpu"]
    shown = command(*words, workspace=packed / "ws", code=3)
    assert "the file is empty" in " ".join((shown.out + shown.err).split())
    with h5py.File(out) as file:
        assert [p.decode() for p in file["path"]] == [str(good)]
    assert "the file is empty" in (tmp_path / "v.h5.quarantine.csv").read_text()
    with pytest.raises(VidsslError, match=r"bad\.mp4 cannot be used: the file is empty"):
        vidssl.embed([good, bad], workspace=packed / "ws")


def test_an_interrupted_run_goes_on(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(packed, tmp_path / "whole.csv")
    decoded: list[str] = []
    decode = VideoEncoder.decode

    def interrupted(self, source):
        if len(decoded) == 2:
            raise KeyboardInterrupt
        decoded.append(source.name)
        return decode(self, source)

    monkeypatch.setattr(VideoEncoder, "decode", interrupted)
    with pytest.raises(Interrupted, match="the same command goes on"):
        run(packed, tmp_path / "v.csv")
    assert not (tmp_path / "v.csv").exists()
    first, again = list(decoded), []

    def counted(self, source):
        again.append(source.name)
        return decode(self, source)

    monkeypatch.setattr(VideoEncoder, "decode", counted)
    parts = sorted((tmp_path / "v.csv.parts").glob("*.npz"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-200])  # damaged: this video is embedded again
    run(packed, tmp_path / "v.csv")
    assert len(again) == 3 and len(set(first) & set(again)) == 1
    assert (tmp_path / "v.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.csv", "whole.csv"]


def test_parts_of_another_encoder_are_not_taken(packed: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "v.csv", Watching()
    (tmp_path / "v.csv.parts").mkdir()
    (tmp_path / "v.csv.parts" / "recipe.json").write_text("{}")
    options = EmbedFiles((packed / "videos",), out, EncoderOptions(device="cpu"))
    embed.run(Workspace(packed / "ws"), options, heard)
    assert out.exists() and not (tmp_path / "v.csv.parts").exists()
    (tmp_path / "w.csv.parts").mkdir()
    (tmp_path / "w.csv.parts" / "thesis.txt").write_text("mine")
    with pytest.raises(VidsslError, match="no folder of an earlier embed"):
        run(packed, tmp_path / "w.csv")
    assert (tmp_path / "w.csv.parts" / "thesis.txt").read_text() == "mine"


def test_bad_options_cost_one_sentence(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end with \.parquet, \.npy, \.h5, \.csv"):
        run(packed, tmp_path / "v.txt")
    with pytest.raises(VidsslError, match="there is no folder"):
        run(packed, tmp_path / "none" / "v.h5")
    (tmp_path / "v.csv").write_text("mine")  # the rows of v.npy would replace it
    with pytest.raises(VidsslError, match="is there already"):
        run(packed, tmp_path / "v.npy")
    run(packed, tmp_path / "v.npy", new=True)
    with pytest.raises(VidsslError, match="there is no encoder file"):
        vidssl.load_encoder(tmp_path / "none.safetensors")
    shutil.copy(packed / "videos/class0/v0.mp4", tmp_path / "x.safetensors")
    with pytest.raises(VidsslError, match="is damaged"):
        vidssl.load_encoder(tmp_path / "x.safetensors")
