"""quarantine.csv is a list of complaints: whatever happened to it, it blocks nothing."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import h5py
import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.base.errors import Remark
from vidssl.extraction.quarantine import (
    QUARANTINE_FILE,
    quarantine_of,
    read_quarantine,
    write_quarantine,
)
from vidssl.workspace.artifacts import Artifact

ROWS = [("a#1", "a", "it is empty"), ("b#2", "b, c", 'says "no"\nand more'), ("c#3", "é", "x")]


def test_what_is_written_is_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_quarantine(tmp_path, ROWS[::-1])
        assert read_quarantine(tmp_path) == ROWS
        write_quarantine(tmp_path, [])
        assert read_quarantine(tmp_path) == []


def test_a_line_that_is_there_twice_is_one_video(tmp_path):
    write_quarantine(tmp_path, ROWS)
    file = tmp_path / QUARANTINE_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.warns(Remark, match=r"quarantine\.csv is damaged in line 6"):
        assert read_quarantine(tmp_path) == ROWS


def test_a_reason_with_a_name_that_is_no_utf8_is_written(tmp_path):
    write_quarantine(tmp_path, [("a#1", "a", f"no file {os.fsdecode(b'caf' + bytes([0xE9]))}")])
    assert read_quarantine(tmp_path) == [("a#1", "a", r"no file caf\udce9")]


HEAD = b"id,video,reason\n"
DAMAGED = {
    "no header": (b"a#1,a,x\n", [("a#1", "a", "x")], "line 1"),
    "empty": (b"", [], "line 1"),
    "a short row": (HEAD + b"a#1,a\nb#2,b,x\n", [("b#2", "b", "x")], "line 2"),
    "a long row": (HEAD + b"b#2,b,x\na#1,a,x,y\n", [("b#2", "b", "x")], "line 3"),
    "no UTF-8": (HEAD + b"a#1,a,\xff\n,b,\n", [("a#1", "a", r"\xff")], "line 3"),
    "zeros": (HEAD + bytes(50), [], "line 2"),
    "a quote without end": (HEAD + b'"' + b"x" * 200_000 + b"\nb#2,b,x\n", None, "line"),
    "noise": (bytes(range(256)) * 8, None, "line 1"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_list_gives_what_can_be_read_and_a_remark(tmp_path, damage):
    data, rows, says = DAMAGED[damage]
    (tmp_path / QUARANTINE_FILE).write_bytes(data)
    with pytest.warns(Remark, match=f"quarantine.csv is damaged in {says}.*the work goes on"):
        found = read_quarantine(tmp_path)
    assert rows is None or found == rows


def test_no_list_and_no_file_are_remarks(tmp_path):
    with pytest.warns(Remark, match="quarantine.csv is missing"):
        assert read_quarantine(tmp_path) == []
    os.mkfifo(tmp_path / QUARANTINE_FILE)
    with pytest.warns(Remark, match="is no regular file"):
        assert read_quarantine(tmp_path) == []


def listing(folder: Path, listed: bool = True) -> Artifact:
    """Returns an artifact that holds `ROWS`, and has their list in its manifest or not."""
    write_quarantine(folder, ROWS)
    data = (folder / QUARANTINE_FILE).read_bytes()
    files = {QUARANTINE_FILE: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    return Artifact(folder, "flow", "main", 1, 1, "", "", {}, {}, {}, files if listed else {})


FAULTS = {
    "edited": "is damaged: its bytes are not those that were written",
    "noise": "is damaged in line 1",
    "gone": "is missing",
    "pipe": "is no regular file",
    "not listed": "lists no file quarantine.csv",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_artifacts_list_with_a_fault_is_one_remark(tmp_path, fault):
    artifact = listing(tmp_path, listed=fault != "not listed")
    path = tmp_path / QUARANTINE_FILE
    if fault == "edited":
        path.write_text(path.read_text().replace("empty", "short"))
    elif fault == "noise":
        path.write_bytes(b"noise")
    elif fault != "not listed":
        path.unlink()
        if fault == "pipe":
            os.mkfifo(path)
    with pytest.warns(Remark) as said:
        rows = quarantine_of(artifact)
    (remark,) = said
    assert str(tmp_path) in str(remark.message) and FAULTS[fault] in str(remark.message)
    assert [row[0] for row in rows] == (
        ["a#1", "b#2", "c#3"] if fault in ("edited", "not listed") else []
    )


def test_a_sound_list_of_an_artifact_is_read_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quarantine_of(listing(tmp_path)) == ROWS


# ── and what it says to do can be done


def rows_of(result) -> list[tuple[str, str]]:
    return [(row["video"], row["reason"]) for row in result.json["quarantined"]]


@pytest.mark.parametrize("damage", [b"noise", None], ids=["noise", "gone"])
def test_a_damaged_list_blocks_no_later_run_and_its_advice_works(tmp_path, damage):
    videos, place = tmp_path / "videos", tmp_path / "w"
    write_video(videos / "moves.mp4", moving_square(4))
    write_video(videos / "still.mp4", moving_square(1))
    alone = "it has one frame only, and flow needs two"
    flow = ["extract-flow", videos, "--workers", 1, "--json"]
    pack = ["pack", videos, "--workers", 1, "--json"]
    assert rows_of(vidssl(*flow, workspace=place, code=3)) == [("still.mp4", alone)]
    path = place / "flow/main/v001" / QUARANTINE_FILE
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.warns(Remark):
        assert vidssl(*flow, workspace=place).json["reused"]
    with pytest.warns(Remark):
        ((video, reason),) = rows_of(vidssl(*pack, workspace=place, code=3))
    assert (video, reason) == (
        "still.mp4",
        "no flow for it: it is new, or was left out for a reason that is lost: run vidssl "
        "extract-flow again with --new",
    )
    again = vidssl(*flow, "--new", workspace=place, code=3)
    assert rows_of(again) == [("still.mp4", alone)]


def test_the_advice_on_a_damaged_frame_works(tmp_path):
    videos, place = tmp_path / "videos", tmp_path / "w"
    write_video(videos / "v.mp4", moving_square(4))
    flow, pack = (
        [command, videos, "--workers", 1, "--json"] for command in ("extract-flow", "pack")
    )
    vidssl(*flow, workspace=place)
    (shard,) = (place / "flow/main/v001").glob("shard-*.h5")
    with h5py.File(shard) as file:
        begin = file["views/flow/blobs"].id.get_offset()
    data = bytearray(shard.read_bytes())
    data[begin + 100] ^= 1
    shard.write_bytes(data)
    said = vidssl(*pack, workspace=place, code=1).json["error"]
    assert "does not match its checksum" in said
    assert said.endswith("type the command that made the artifact again with --new")
    vidssl(*flow, "--new", workspace=place)
    assert vidssl(*pack, workspace=place).json["artifact"] == "pack/main/v001"
