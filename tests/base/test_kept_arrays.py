"""Kept arrays: found as they were written, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from vidssl.base import kept_arrays
from vidssl.base.kept_arrays import Keeper, KeptArrays

SHAPE = (2, 3)


def array(number: int) -> np.ndarray:
    return np.full(SHAPE, number + 0.5, np.float32)


def opened(folder: Path, of: str = "a", count: int = 4) -> KeptArrays:
    found = Keeper(folder, {"of": of}).open_arrays({}, count, SHAPE, "<f4")
    assert found is not None
    return found


def test_arrays_are_found_again_by_number(tmp_path):
    kept = opened(tmp_path / "kept")
    assert kept.get(2) is None
    assert kept.put(2, array(2)) and kept.put(0, array(0))
    again = opened(tmp_path / "kept")
    assert np.array_equal(again.get(2), array(2)) and np.array_equal(again.get(0), array(0))
    assert again.get(1) is None and again.get(3) is None  # a hole, and beyond the end


def test_every_changed_byte_is_noticed(tmp_path):
    kept = opened(tmp_path)
    kept.put(0, array(0))
    whole = kept.path.read_bytes()
    for at in range(len(whole)):
        kept.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert opened(tmp_path).get(0) is None, at
    kept.path.write_bytes(whole[:-1])
    assert opened(tmp_path).get(0) is None


def test_an_array_of_another_number_or_another_key_is_none(tmp_path):
    kept, other = opened(tmp_path), opened(tmp_path, of="b")
    assert kept.path != other.path
    for number in range(2):
        kept.put(number, array(number))
    width = kept.path.stat().st_size // 2
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[width:] + whole[:width])
    assert opened(tmp_path).get(0) is None and opened(tmp_path).get(1) is None
    other.path.write_bytes(whole)
    assert opened(tmp_path, of="b").get(0) is None


def test_a_full_disk_loses_nothing_but_time(tmp_path, monkeypatch):
    kept = opened(tmp_path)
    kept.put(0, array(0))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert not kept.put(1, array(1))
    monkeypatch.undo()
    assert kept.get(1) is None and np.array_equal(kept.get(0), array(0))


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    assert Keeper(file, {}).open_arrays({}, 1, SHAPE, "<f4") is None
    assert Keeper(tmp_path / "none" / "below", {}).open_arrays({}, 1, SHAPE, "<f4") is None


def test_a_link_is_not_followed(tmp_path):
    kept = opened(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"someone's file")
    kept.path.unlink()
    kept.path.symlink_to(elsewhere)
    assert Keeper(tmp_path, {"of": "a"}).open_arrays({}, 4, SHAPE, "<f4") is None
    assert elsewhere.read_bytes() == b"someone's file"


@pytest.mark.parametrize("place", ["all", "free"])
def test_what_takes_too_much_of_the_disk_is_not_kept(tmp_path, monkeypatch, place):
    if place == "all":
        monkeypatch.setattr(kept_arrays, "MOST_BYTES", 100)
    else:
        monkeypatch.setattr(kept_arrays, "SHARE_OF_FREE", 1 << 62)
    assert Keeper(tmp_path, {}).open_arrays({}, 1000, SHAPE, "<f4") is None
    assert not list(tmp_path.iterdir())


def test_the_longest_unused_files_make_room(tmp_path, monkeypatch):
    files = [opened(tmp_path, of=name) for name in "abc"]
    for age, kept in enumerate(reversed(files)):
        for number in range(400):  # some blocks of the disk
            kept.put(number, array(number))
        os.utime(kept.path, (1000 - age, 1000 - age))
    used = sum(kept.path.stat().st_blocks * 512 for kept in files)
    monkeypatch.setattr(kept_arrays, "MOST_BYTES", used)
    opened(tmp_path, of="d")
    assert [kept.path.exists() for kept in files] == [False, True, True]
    # Who has it open goes on.
    assert np.array_equal(files[0].get(3), array(3))
