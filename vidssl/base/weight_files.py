"""Reads files written by torch.save without running any code in them, and checks what they hold.

PyTorch's own errors are not passed on: they advise to switch the protection off.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vidssl.base.errors import VidsslError
from vidssl.base.files import open_regular

ZIP, PICKLE = b"PK", b"\x80"  # the present format begins as a zip file, the one before as a pickle


class UnreadableWeights(VidsslError):
    """A file that cannot be read as one of torch.save's. The sentence begins with its path.

    Attributes:
        fault: the sentence without the path.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path} {fault}")
        self.fault = fault


def read_torch_file(path: Path, stand_ins: Sequence[Any] = ()) -> Any:
    """Returns what a file of torch.save holds: tensors (on the CPU), numbers, texts, lists, dicts.

    Args:
        stand_ins: functions and types that the pickle may name, as
            `torch.serialization.safe_globals` takes them.

    Raises:
        UnreadableWeights: it is no such file, is damaged, or holds something that is code.
        FileNotFoundError: there is no such file.
    """
    with open_regular(path) as file:
        begin = file.read(2)
    if not begin.startswith((ZIP, PICKLE)):
        raise UnreadableWeights(
            path, "is no PyTorch checkpoint: it is neither a zip file nor a pickle"
        )
    is_zip = begin.startswith(ZIP)
    try:
        if is_zip:
            _refuse_compressed(path)
        with torch.serialization.safe_globals(list(stand_ins)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of an odd pickle helps nobody
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UnreadableWeights:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UnreadableWeights(path, _why(str(error))) from error


def _refuse_compressed(path: Path) -> None:
    """Refuses a zip file with compressed entries: small ones may unfold to any size."""
    with zipfile.ZipFile(path) as entries:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
            raise UnreadableWeights(
                path,
                "is no PyTorch checkpoint: its entries are compressed, and torch.save compresses "
                "none",
            )


def _why(said: str) -> str:
    """Returns why torch.load refused a file; of its own words only a name is kept."""
    if found := re.search(r"GLOBAL ([\w.]+)", said):
        return (
            f"cannot be read without running code: it names {found[1]:.80}, and only tensors and "
            "plain values are read"
        )
    if "weights_only" in said.lower() or "Unsupported" in said:
        return "cannot be read: it holds something that is neither a tensor nor a plain value"
    return "cannot be read: it is damaged or cut short"


def check_state_dict(path: Path, state: Any) -> dict[str, torch.Tensor]:
    """Checks that a value is a state_dict: {name: tensor}, each tensor plain, whole and finite.

    Raises:
        UnreadableWeights: it is none; the sentence names the file and the first wrong entry.
    """
    if not isinstance(state, Mapping) or not state:
        raise UnreadableWeights(path, "holds no state_dict")
    for name, value in state.items():
        if not isinstance(name, str):
            raise UnreadableWeights(path, f"holds no state_dict: it has a key {name!r:.60}")
        if (problem := _problem(value)) is not None:
            raise UnreadableWeights(path, f"cannot be used: its {name:.100} {problem}")
    return dict(state)


def _problem(value: Any) -> str | None:
    """Returns what is wrong with an entry of a state_dict, or None."""
    if not isinstance(value, torch.Tensor):
        return f"is no tensor, but {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return "is no plain tensor with values"
    # A tensor can repeat a few stored values to any size; copying it would take the memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"has a shape {list(value.shape)} beyond its stored values"
    if value.is_complex() or (value.is_floating_point() and not bool(value.isfinite().all())):
        return "has values that are no finite numbers"
    return None
