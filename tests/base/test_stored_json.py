"""Small stored files are read as typed records, or end in one sentence with the file's name."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from vidssl.base.errors import VidsslError
from vidssl.base.stored_json import DamagedFile, bounded, read_json, read_record, read_text, record


@dataclass(frozen=True)
class Size:
    height: int = field(metadata=bounded(at_least=1, at_most=100))
    width: int = 7


@dataclass(frozen=True)
class Example:
    name: str = field(metadata=bounded(pattern="[a-z]+"))
    rate: float
    size: Size
    note: str | None
    pair: tuple[int, int]
    counts: list[int]
    parents: Mapping[str, str]
    anything: Any = None
    on: bool = False


GOOD = {
    "name": "ab",
    "rate": 3,
    "size": {"height": 2},
    "note": None,
    "pair": [1, 2],
    "counts": [1, 2, 3],
    "parents": {"init": "x"},
}


def test_a_good_file_is_a_record(tmp_path):
    path = tmp_path / "example.json"
    path.write_text(json.dumps(GOOD))
    found = read_record(Example, path)
    assert found == Example("ab", 3.0, Size(2), None, (1, 2), [1, 2, 3], {"init": "x"})
    assert isinstance(found.rate, float) and isinstance(found.pair, tuple)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": 3}, "name must be a text, not 3"),
        ({"name": "A"}, r"name must look like \[a-z\]\+, not 'A'"),
        ({"rate": True}, "rate must be a number, not True"),
        ({"rate": float("inf")}, "rate must be a number"),
        ({"rate": 10**400}, "rate must be a number"),
        ({"size": {"height": 0}}, "size.height must be at least 1, not 0"),
        ({"size": {"height": 10**9}}, "size.height must be at most 100"),
        ({"size": {"height": True}}, "size.height must be a whole number, not True"),
        ({"size": {"height": 1, "depth": 1}}, "unknown field size.depth"),
        ({"size": {}}, "it has no size.height"),
        ({"size": 3}, "size must be an object, not 3"),
        ({"note": 3}, "note must be null, not 3"),
        ({"pair": [1]}, r"pair must be a list of 2, not \[1\]"),
        ({"counts": [1, "2"]}, r"counts\[1\] must be a whole number, not '2'"),
        ({"counts": {}}, "counts must be a list"),
        ({"parents": {"init": 1}}, "parents.init must be a text"),
        ({"parents": []}, "parents must be an object"),
        ({"on": 1}, "on must be true or false, not 1"),
    ],
)
def test_a_wrong_field_is_named(changed, says):
    with pytest.raises(DamagedFile, match=f"run.json is damaged: .*{says}"):
        record(Example, GOOD | changed, "run.json")


@pytest.mark.parametrize("value", [None, 3, [], "text"])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(DamagedFile, match="it must be an object"):
        record(Example, value, "run.json")


def test_unknown_fields_are_left_out_where_asked():
    assert record(Size, {"height": 2, "depth": 1}, "x", ignore=True) == Size(2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100 + b"]" * 100,
        b"1" * 5000,
    ],
)
def test_what_is_not_json_is_one_sentence(tmp_path, data):
    path = tmp_path / "run.json"
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=r"run\.json is damaged: "):
        read_json(path)


def test_brackets_in_texts_do_not_count_as_depth(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(["[" * 1000, '"' + "{" * 1000]))
    assert read_json(path) == ["[" * 1000, '"' + "{" * 1000]


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(VidsslError, match="no regular file"):
            read_text(path)
    with pytest.raises(VidsslError, match="no regular file"):
        read_text(type(tmp_path)("/dev/zero"))
    (tmp_path / "large").write_bytes(b"1" * 11)
    with pytest.raises(DamagedFile, match="more than 10 bytes"):
        read_text(tmp_path / "large", largest=10)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")
