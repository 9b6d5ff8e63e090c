"""The spec in an encoder's file: every field known, typed and bounded before anything is built."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import UsageError
from vidssl.base.stored_json import DamagedFile
from vidssl.workspace.checkpoints import read_spec

GOOD = {"view": "rgb", "backbone": "tiny", "channels": 3, "frames": 8, "stride": 1, "size": 32}

WRONG = [
    ({"frames": 10**9}, "frames must be at most 10000, not 1000000000"),
    ({"frames": 0}, "frames must be at least 1"),
    ({"frames": "8"}, "frames must be a whole number"),
    ({"frames": 8.0}, "frames must be a whole number"),
    ({"stride": -1}, "stride must be at least 1"),
    ({"size": 10**6}, "size must be at most 10000"),
    ({"channels": True}, "channels must be a whole number"),
    ({"channels": 10**6}, "channels must be at most 1024"),
    ({"project": 10**9}, "project must be at most 65536"),
    ({"blocks": 0}, "blocks must be at least 1"),
    ({"frames": 9000, "size": 9000}, "values is more than"),
    ({"backbone": "s3dd"}, r"there is no backbone s3dd \(did you mean s3d\?\)"),
    ({"backbone": 3}, "backbone must be a text"),
    ({"context": "lstm"}, "there is no context lstm"),
    ({"view": "../rgb"}, "view must look like"),
    ({"presentation": None}, "presentation must be a text"),
    ({"depth": 3}, "it has an unknown field depth"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_wrong_field_is_one_sentence_with_the_file(change, says):
    with pytest.raises(DamagedFile, match=f"encoder.rgb is damaged: .*{says}"):
        EncoderSpec.from_file(GOOD | change, Path("encoder.rgb"))


def test_a_missing_field_and_no_object():
    with pytest.raises(DamagedFile, match="it has no frames"):
        EncoderSpec.from_file({k: v for k, v in GOOD.items() if k != "frames"}, Path("e"))
    for value in (None, [], "rgb"):
        with pytest.raises(DamagedFile, match="must be an object"):
            EncoderSpec.from_file(value, Path("e"))


def test_a_good_spec_and_an_older_one():
    later = {"project": None, "blocks": 3, "context": "gru", "presentation": "cocon"}
    for value in (GOOD, GOOD | later):
        spec = EncoderSpec.from_file(value, Path("e"))
        assert spec == EncoderSpec(**value) and spec.problem() is None


def test_nothing_is_built_of_an_impossible_spec():
    with pytest.raises(UsageError, match="frames must be at most"):
        Encoder(EncoderSpec(**(GOOD | {"frames": 10**9})))


@pytest.mark.parametrize(
    "about",
    ["", "[]", "3", "[" * 100_000, json.dumps({"kind": "encoder"}), '{"kind": "encoder", "f'],
    ids=["empty", "list", "number", "deep", "no format", "cut"],
)
def test_any_header_is_one_sentence(tmp_path, about):
    path = tmp_path / "encoder.rgb.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"vidssl": about})
    with pytest.raises(Exception, match=re.escape(str(path))) as caught:
        read_spec(path)
    assert "no vidssl encoder" in str(caught.value) or "format None" in str(caught.value)


def test_a_spec_in_a_file_is_checked(tmp_path):
    path = tmp_path / "encoder.rgb.safetensors"
    about = {"kind": "encoder", "format": 1, "spec": GOOD | {"frames": 10**9}}
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"vidssl": json.dumps(about)})
    with pytest.raises(DamagedFile, match=r"encoder.rgb.safetensors is damaged: frames must be at"):
        read_spec(path)
