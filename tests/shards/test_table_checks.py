"""A shard from anyone: what its tables are made of and say is checked when it is opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidssl.base.errors import VidsslError
from vidssl.shards import DamagedShard, ShardReader, ShardWriter, VideoRecord
from vidssl.views import VIEWS

PARAMS = {"rgb": {"codec": "png", "stride": 2}, "flow": {"codec": "png", "bound": 10.0}}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A shard of two videos."""
    folder = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(0)
    with ShardWriter(folder, PARAMS) as writer:
        for name in ("a", "b"):
            record = VideoRecord(f"{name}.mp4#00", f"{name}.mp4", 25.0, 3, 8, 6, "a note")
            blobs = {
                view: [VIEWS[view].encode(draw.integers(1, 256, (6, 8, c), np.uint8), "png")] * n
                for view, c, n in (("rgb", 3, 3), ("flow", 2, 2))
            }
            writer.add(record, blobs)
        writer.finish()
    return folder / "shard-0000.h5"


@pytest.fixture
def shard(made, tmp_path) -> Path:
    return Path(shutil.copy(made, tmp_path / made.name))


def put(name, value):
    """Returns a change of one dataset's values, which may have another shape or type."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def at(name, index, value):
    def change(file: h5py.File) -> None:
        file[name][index] = value

    return change


def params(view, **changed):
    def change(file: h5py.File) -> None:
        file[f"views/{view}"].attrs["params"] = json.dumps(PARAMS[view] | changed)

    return change


def attribute(where, name, value):
    def change(file: h5py.File) -> None:
        file[where].attrs[name] = value

    return change


def without(name):
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def huge(name, kind, count=10**13):
    """Announces more rows than any memory holds; the file has none of them."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, (count,), kind)

    return change


def external(file: h5py.File) -> None:
    del file["views/rgb/crc32"]
    storage = [("/etc/passwd", 0, 24)]
    file.create_dataset("views/rgb/crc32", (6,), "<u4", external=storage)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6,), "<u4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "crc32", (6,))
    del file["views/rgb/crc32"]
    file.create_virtual_dataset("views/rgb/crc32", layout)


def linked(link):
    def change(file: h5py.File) -> None:
        for name in ("videos/id", "views/flow", "videos"):
            if link[0] == name:
                del file[name]
                file[name] = link[1]

    return change


def filtered(file: h5py.File) -> None:
    rows = file["videos/fps"][()]
    del file["videos/fps"]
    file.create_dataset("videos/fps", data=rows, compression="gzip")


CHANGES = {
    "no videos": without("videos"),
    "no views": without("views"),
    "no offsets": without("views/rgb/offsets"),
    "a group for a table": lambda f: (without("videos/id")(f), f.create_group("videos/id")),
    "a table for a group": put("views/flow", np.zeros(2)),
    "an external link": linked(("videos/id", h5py.ExternalLink("/etc/passwd", "/id"))),
    "an external group": linked(("views/flow", h5py.ExternalLink("other.h5", "/views/flow"))),
    "a soft link": linked(("videos", h5py.SoftLink("/elsewhere"))),
    "external storage": external,
    "a virtual dataset": virtual,
    "a filter": filtered,
    "huge columns": huge("videos/fps", "<f8"),
    "huge ids": huge("videos/id", "S1000000"),
    "huge first frames": huge("views/rgb/first_frame", "<i8"),
    "huge offsets": huge("views/rgb/offsets", "<i8"),
    "a scalar": put("videos/fps", 25.0),
    "two dimensions": put("videos/fps", np.zeros((2, 2))),
    "no rows": put("views/rgb/first_frame", np.zeros(0, "<i8")),
    "texts for numbers": put("videos/frames", np.array([b"x", b"y"])),
    "floats for whole numbers": put("videos/frames", np.ones(2)),
    "other bytes": put("views/rgb/offsets", np.zeros(7, ">i8")),
    "ids of no length": put("videos/id", np.array([b"", b"a"], "S4")),
    "ids that are one": put("videos/id", np.array([b"a", b"a"], "S4")),
    "ids that are no UTF-8": put("videos/id", np.array([b"\xff", b"a"], "S4")),
    "ids of any length": put("videos/id", np.array(["a", "b"], h5py.string_dtype())),
    "paths that are no UTF-8": put("videos/path", np.array([b"\xff", b"a"], "S4")),
    "a digest that is none": at("videos/digest", 0, b"../" * 20),
    "a negative count": at("videos/frames", 0, -3),
    "an endless count": at("videos/frames", 0, 2**62),
    "an impossible width": at("videos/width", 1, -1),
    "a frame rate that is none": at("videos/fps", 0, float("nan")),
    "a negative frame rate": at("videos/fps", 0, -25.0),
    "a short column": put("videos/width", np.zeros(1, "<i8")),
    "first frames that fall": at("views/rgb/first_frame", 1, 7),
    "first frames from -1": at("views/rgb/first_frame", 0, -1),
    "more frames than stored": at("views/rgb/first_frame", 2, 60),
    "a negative sum": at("views/rgb/first_frame", 2, -6),
    "offsets that end elsewhere": at("views/rgb/offsets", -1, 10**12),
    "offsets that begin elsewhere": at("views/rgb/offsets", 0, -8),
    "a stride of 0": params("rgb", stride=0),
    "a negative stride": params("rgb", stride=-1),
    "a huge stride": params("rgb", stride=10**30),
    "a stride that is a text": params("rgb", stride="2"),
    "a codec that is none": params("rgb", codec=None),
    "a bound of 0": params("flow", bound=0),
    "a bound that is a text": params("flow", bound="much"),
    "parameters that are no object": attribute("views/rgb", "params", "[1]"),
    "parameters that are no JSON": attribute("views/rgb", "params", "{"),
    "parameters without end": attribute("views/rgb", "params", "[" * 20_000),
    "parameters that are numbers": attribute("views/rgb", "params", np.arange(3)),
    "a version that is a text": attribute("/", "format_version", "one"),
    "a version that is many": attribute("/", "format_version", [1, 1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_tables_say_is_one_sentence_with_the_file(shard, change):
    with h5py.File(shard, "r+") as file:
        CHANGES[change](file)
    with pytest.raises(DamagedShard, match=r"shard-0000\.h5 cannot be read as a shard") as caught:
        ShardReader(shard.parent)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_the_shard_as_it_is_opens(shard):
    with ShardReader(shard.parent) as reader:
        assert len(reader) == 2 and list(reader.verify()) == []
        assert reader.notes() == {"a.mp4#00": "a note", "b.mp4#00": "a note"}


def test_a_note_that_is_no_text_blocks_nothing(shard):
    with h5py.File(shard, "r+") as file:
        put("videos/note", np.array([b"\xff\xfe", b""]))(file)
    assert ShardReader(shard.parent).notes() == {"a.mp4#00": r"\xff\xfe"}


@pytest.mark.parametrize("values", [[0, 9, 4], [0, -9, 4], [0, 2**62, 4]])
def test_offsets_that_run_backwards_are_found_where_they_are_read(shard, values):
    with h5py.File(shard, "r+") as file:
        file["views/flow/offsets"][:3] = values
    with ShardReader(shard.parent) as reader, pytest.raises(DamagedShard, match="impossible offs"):
        reader.read("flow", 0, [0, 1])


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "shard-0000.h5")
    with pytest.raises(VidsslError, match="is no regular file"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_a_shard_cut_short_is_one_sentence(shard, keep):
    size = shard.stat().st_size
    os.truncate(shard, int(keep * size) if isinstance(keep, float) else keep % size)
    with pytest.raises(DamagedShard, match="damaged or cut short"):
        ShardReader(shard.parent)
