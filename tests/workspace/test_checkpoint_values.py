"""Checkpoints with values that are no numbers are neither written nor read."""

from __future__ import annotations

import pytest
import safetensors
import safetensors.torch
import torch
from methods import encoder

from vidssl.base.errors import VidsslError
from vidssl.base.finite_values import first_not_finite
from vidssl.workspace.checkpoints import encoder_file, load_encoder, save_encoder, save_tensors


@pytest.mark.parametrize("name", ["head.0.weight", "running_mean", "running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_encoder_is_written_or_read(tmp_path, name, value):
    made = encoder("rgb")
    path = save_encoder(made, tmp_path)
    before = path.read_bytes()
    (whole, *_) = [key for key in made.state_dict() if key.endswith(name)]
    made.state_dict()[whole].flatten()[0] = value
    with pytest.raises(VidsslError, match=f"rgb encoder has values that are no numbers.*{whole}"):
        save_encoder(made, tmp_path)
    assert path.read_bytes() == before
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata()
    state = {key: value.contiguous() for key, value in made.state_dict().items()}
    safetensors.torch.save_file(state, path, header)
    with pytest.raises(VidsslError, match=rf"{encoder_file('rgb')} has values.*{whole}"):
        load_encoder(path)


def test_no_tensors_of_a_method_are_written(tmp_path):
    with pytest.raises(VidsslError, match="such as in prototypes"):
        save_tensors({"fine": torch.ones(2), "prototypes": torch.tensor([torch.nan])}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_floating_point_numbers_are_looked_at():
    some = {"count": torch.tensor(1), "flag": torch.tensor(True), "none": None, "x": torch.ones(0)}
    assert first_not_finite(some) is first_not_finite({}) is None
    assert first_not_finite(some | {"y": torch.tensor(-torch.inf)}) == "y"
