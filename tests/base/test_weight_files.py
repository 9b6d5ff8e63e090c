"""Files of torch.save from anyone: no code, no bombs, plain tensors; torch's advice stays out."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from vidssl.base.errors import VidsslError
from vidssl.base.weight_files import UnreadableWeights, check_state_dict, read_torch_file


class Trap:
    """Would make a file when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("it-ran",))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_plain_values_are_read(tmp_path, zipped):
    whole = {"state_dict": OrderedDict(a=torch.arange(3)), "epoch": 3, "names": ["x"]}
    torch.save(whole, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "a.pth")
    assert found["state_dict"]["a"].tolist() == [0, 1, 2] and found["epoch"] == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_and_no_advice_is_passed_on(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": Trap()}, "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UnreadableWeights, match=r"without running code: it names .*mkdir"
    ) as caught:
        read_torch_file(tmp_path / "a.pth")
    assert "mkdir" in str(caught.value)
    assert not (tmp_path / "it-ran").exists()
    for word in ("weights_only", "torch", "trust", "safe_globals", "\n"):
        assert word not in str(caught.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


def compressed(path):
    with zipfile.ZipFile(path) as old:
        items = [(item.filename, old.read(item)) for item in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in items:
            new.writestr(name, data)


DAMAGES = {
    "cut": (cut, "cannot be read: it is damaged or cut short"),
    "compressed": (compressed, "its entries are compressed"),
    "text": (lambda p: p.write_text("no checkpoint"), "neither a zip file nor a pickle"),
    "empty": (lambda p: p.write_bytes(b""), "neither a zip file nor a pickle"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "cannot be read: "),
    "noise": (lambda p: p.write_bytes(b"\x80\x02ende."), "cannot be read: "),
    "zip": (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "cannot be read: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    change, says = DAMAGES[damage]
    change(path)
    with pytest.raises(UnreadableWeights, match=f"a.pth .*{says}") as caught:
        read_torch_file(path)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, type(tmp_path)("/dev/zero")):
        with pytest.raises(VidsslError, match="is no regular file"):
            read_torch_file(path)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ([], "holds no state_dict"),
        ({}, "holds no state_dict"),
        ({1: torch.zeros(1)}, "it has a key 1"),
        ({"a": 3}, "its a is no tensor, but int"),
        ({"a": {"b": torch.zeros(1)}}, "its a is no tensor, but dict"),
        ({"a": torch.zeros(2).to_sparse()}, "its a is no plain tensor"),
        ({"a": torch.zeros(2, device="meta")}, "its a is no plain tensor"),
        ({"a": torch.zeros(1).expand(10**12)}, "beyond its stored values"),
        ({"a": torch.tensor([1.0, float("nan")])}, "its a has values that are no finite numbers"),
        ({"a": torch.tensor([float("inf")], dtype=torch.bfloat16)}, "no finite numbers"),
        ({"a": torch.zeros(1, dtype=torch.complex64)}, "no finite numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_dict_is_plain_tensors_by_name(tmp_path, state, says):
    with pytest.raises(UnreadableWeights, match=f"a.pth .*{says}"):
        check_state_dict(tmp_path / "a.pth", state)


def test_a_good_state_dict_comes_as_it_is(tmp_path):
    state = OrderedDict(w=torch.randn(2, 3).t(), n=torch.tensor(3), part=torch.zeros(5)[1:3])
    assert check_state_dict(tmp_path, state) == dict(state)
