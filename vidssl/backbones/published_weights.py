"""Imports published checkpoints of CoCLR, ViCC, DPC and CoCon into our encoders.

Rules rename the published keys. Every key of a file is imported, or known and left out; any other
key is an error.

Layouts: the `state_dict` of a file written by `torch.save` has, after an optional `module.`,

    InfoNCE, UberNCE, CoCLR   encoder_q., encoder_k., sampler., queue*
    ViCC                      encoder_q., second., prototypes.weight
    DPC, CoCon                backbone., agg., network_pred.
    classifiers of all        backbone., final_bn., final_fc.0. or .1.; DPC's and CoCon's also agg.

and in the first two `.0.` is the backbone, `.2.` and `.4.` are the head's 1×1×1 convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.finite_values import first_not_finite
from vidssl.base.text import counted
from vidssl.base.weight_files import check_state_dict, read_torch_file

Rename = Callable[[str], str]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class PublishedMethod:
    """The layout of a published implementation's files, and the input of its networks.

    Attributes:
        backbone: of the published runs.
        frames, stride, blocks: of their clips (128 pixels wide).
        head: whether there is a projection head, rather than a context.
        left_out: {beginning of keys that no encoder needs: what they are}.
        presentations: {view: how it was shown}, where that is not "native".
        extra_state: {our name: key} of tensors that later runs of the method need.
    """

    backbone: str
    frames: int
    stride: int
    blocks: int
    head: bool
    left_out: Mapping[str, str]
    presentations: Mapping[str, str]
    extra_state: Mapping[str, str] = field(default_factory=dict)


_MOCO = PublishedMethod(
    backbone="s3d",
    frames=32,
    stride=1,
    blocks=1,
    head=True,
    left_out={
        "encoder_k.": "key encoder",
        "sampler.": "frozen partner of the other stream",
        "queue": "queue",
    },
    presentations={"flow": "coclr"},
)
_DENSE = PublishedMethod(
    backbone="r2d3d_18",
    frames=5,
    stride=3,
    blocks=8,
    head=False,
    left_out={},
    presentations={"flow": "cocon"},
)
# The keys of finetuned networks and linear probes besides their backbone.
_CLASSIFIER = {
    "final_bn.": "BatchNorm of a classifier",
    "final_fc.0.": "classifier",
    "final_fc.1.": "classifier",
    "agg.": "context of a classifier, which foretells nothing",
}
PUBLISHED_METHODS: dict[str, PublishedMethod] = {
    "infonce": _MOCO,
    "ubernce": _MOCO,
    "coclr": _MOCO,
    "vicc": replace(
        _MOCO,
        left_out={"second.": "frozen partner of the other stream"},
        extra_state={"prototypes": "prototypes.weight"},
    ),
    "dpc": _DENSE,
    "cocon": _DENSE,
}


@dataclass(frozen=True)
class Imported:
    """An encoder from a published file, and what else the file holds.

    Attributes:
        tensors: what later runs of the method need: ViCC's prototypes [count, 128].
        notes: a sentence for each kind of thing that was left out or is missing.
        lacks_statistics: the file has no BatchNorm statistics, and the encoder only initial ones.
    """

    encoder: Encoder
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    lacks_statistics: bool = False


def get_method(name: str) -> PublishedMethod:
    """Returns the layout of a published method's files; the case of its name does not matter.

    Raises:
        UsageError: no files of such a method are known.
    """
    if name.lower() not in PUBLISHED_METHODS:
        raise UsageError(
            f"there are no published files of {name}"
            f"{nearest_name(name.lower(), PUBLISHED_METHODS)}; "
            f"known are those of {', '.join(PUBLISHED_METHODS)}"
        )
    return PUBLISHED_METHODS[name.lower()]


def is_classifier(state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict is of a finetuned network or a linear probe, not of a method's own."""
    keys = [key.removeprefix("module.") for key in state]
    return any(key.startswith(("final_fc.0.", "final_fc.1.")) for key in keys) and not any(
        key.startswith(("encoder_q.", "network_pred.")) for key in keys
    )


# ── reading ──────────────────────────────────────────────────────────────────────────────────


class _Dtype:
    """Replaces numpy.dtype: keeps its code and its byte order, and nothing else."""

    def __init__(self, code: str, *rest: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "=" if state[1] == "|" else state[1]


def _scalar(dtype: _Dtype, data: bytes) -> int | float | bool:
    """Replaces NumPy's scalar: returns a plain number, and refuses anything else."""
    if not re.fullmatch(r"[biuf]\d", dtype.code):
        raise ValueError(f"a NumPy scalar of kind {dtype.code} is no plain number")
    number: int | float | bool = np.frombuffer(data, dtype.order + dtype.code)[0].item()
    return number


# The types with which `best_acc` and the like were pickled, in NumPy 1 and 2. No code of NumPy is
# called.
_STAND_INS = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_Dtype, "numpy.dtype"),
]


def read_published(path: Path) -> dict[str, Any]:
    """Reads a published `.pth.tar` without running any code in it.

    Raises:
        VidsslError: there is no such file, it is no checkpoint, or reading it would run code.
    """
    if not path.exists():
        raise VidsslError(f"there is no file {path}")
    whole = read_torch_file(path, _STAND_INS)
    if not isinstance(whole, dict) or not isinstance(whole.get("state_dict"), dict):
        raise VidsslError(f"{path} is no published checkpoint: it has no state_dict")
    return whole | {"state_dict": check_state_dict(path, whole["state_dict"])}


# ── from keys to an encoder ──────────────────────────────────────────────────────────────────


def import_state(state: Mapping[str, Tensor], method: str, spec: EncoderSpec) -> Imported:
    """Makes an encoder from a published state_dict.

    Args:
        spec: of the encoder; the head's width is that of :func:`projection_width`.

    Raises:
        VidsslError: a tensor is missing, left over, of another shape, has a value that is not
            finite, or is an alias that differs.
    """
    layout = get_method(method)
    if is_classifier(state):
        layout = replace(layout, head=False, left_out=_CLASSIFIER)
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    notes: list[str] = []
    tensors = {name: bare.pop(key) for name, key in layout.extra_state.items() if key in bare}
    for begin, what in layout.left_out.items():
        keys = [key for key in bare if key.startswith(begin)]
        for key in keys:
            del bare[key]
        if keys:
            notes.append(f"{what} left out ({counted(len(keys), 'tensor')}, {begin}…)")
    bare, aliases = _without_aliases(bare)
    if aliases:
        notes.append(
            f"{counted(aliases, 'alias')} left out: second names of tensors that were taken"
        )
    if (broken := first_not_finite({**bare, **tensors})) is not None:
        _refuse("not finite (NaN or infinite)", [broken])
    encoder = Encoder(spec)
    renamed = _renamed(bare, _rules(layout, spec.backbone))
    lacks = _fill(encoder, renamed)
    if lacks:
        notes.append(
            f"{lacks} BatchNorm statistics are not in the file (it was trained without): they "
            "must be measured before the encoder is used"
        )
    return Imported(encoder.eval(), tensors, notes, lacks > 0)


def projection_width(state: Mapping[str, Tensor], method: str) -> int | None:
    """Returns the width of the file's projection head; None for methods and files without one.

    Raises:
        VidsslError: the file should have one, and has none.
    """
    if not get_method(method).head or is_classifier(state):
        return None
    for key, value in state.items():
        if key.removeprefix("module.") == "encoder_q.4.weight" and value.ndim:
            return int(value.shape[0])
    raise VidsslError(
        "encoder_q.4.weight is missing: this is no self-supervised checkpoint with its head"
    )


# Sequences by which the published S3D names its layers a second time.
_S3D_ALIASES = {
    "block1": ("Conv_1a",),
    "block2": ("MaxPool_2a", "Conv_2b", "Conv_2c"),
    "block3": ("MaxPool_3a", "Mixed_3b", "Mixed_3c"),
    "block4": ("MaxPool_4a", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    "block5": ("MaxPool_5a", "Mixed_5b", "Mixed_5c"),
}


def _first_name(key: str) -> str | None:
    """Returns the first name of a tensor that `key` names a second time; None if it does not."""
    if match := re.fullmatch(r"(encoder_q\.0\.|backbone\.)(block\d)\.(\d)\.(.*)", key):
        names = _S3D_ALIASES.get(match[2], ())
        at = int(match[3])
        return f"{match[1]}{names[at]}.{match[4]}" if at < len(names) else None
    if key.startswith("agg.cell_list.0."):
        return key.replace("agg.cell_list.0.", "agg.ConvGRUCell_00.")
    return None


def _without_aliases(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    kept = dict(state)
    for key, value in state.items():
        first = _first_name(key)
        if first is None:
            continue
        if first in state and not torch.equal(state[first], value):
            raise VidsslError(f"{key} should be a second name of {first}, and they differ")
        kept.setdefault(first, value)
        del kept[key]
    return kept, len(state) - len(kept)


def _renamed(state: Mapping[str, Tensor], rename: Rename) -> dict[str, tuple[str, Tensor]]:
    """Returns {our name: (published name, tensor)}."""
    renamed: dict[str, tuple[str, Tensor]] = {}
    for key, value in state.items():
        name = rename(key)
        if name.startswith("head.") and name.endswith(".weight") and value.ndim > 2:
            value = value.flatten(1)  # a 1×1×1 convolution on a pooled map is a linear map
        renamed[name] = (key, value)
    return renamed


def _fill(encoder: Encoder, renamed: Mapping[str, tuple[str, Tensor]]) -> int:
    """Loads the tensors; returns how many BatchNorm statistics the file lacks (none, or all)."""
    wanted = encoder.state_dict()
    _refuse("left over", [key for name, (key, _) in renamed.items() if name not in wanted])
    missing = [name for name in wanted if name not in renamed]
    statistics = [name for name in wanted if name.endswith(STATISTICS)]
    lacks = missing and set(missing) == set(statistics)
    if not lacks:
        _refuse("missing", missing)
    _refuse(
        "of another shape",
        [
            f"{key} ({list(value.shape)}, not {list(wanted[name].shape)})"
            for name, (key, value) in renamed.items()
            if value.shape != wanted[name].shape
        ],
    )
    encoder.load_state_dict({name: value for name, (_, value) in renamed.items()}, strict=not lacks)
    return len(missing)


def _refuse(what: str, keys: Iterable[str]) -> None:
    keys = list(keys)
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise VidsslError(f"a tensor is {what}: {keys[0]}{more}")


# ── the rules ────────────────────────────────────────────────────────────────────────────────


def _rules(layout: PublishedMethod, backbone: str) -> Rename:
    inside = BACKBONE_RULES.get(backbone, lambda key: key)

    def rename(key: str) -> str:
        if layout.head:
            key = re.sub(r"^encoder_q\.2\.", "head.0.", key)
            key = re.sub(r"^encoder_q\.4\.", "head.2.", key)
            key = re.sub(r"^encoder_q\.0\.", "backbone.", key)
        else:
            key = re.sub(r"^agg\.ConvGRUCell_00\.(\w+)_gate\.", r"context.gru.\1.", key)
            key = re.sub(r"^network_pred\.", "context.predict.", key)
        if key.startswith("backbone."):
            return "backbone." + inside(key.removeprefix("backbone."))
        return key

    return rename


_S3D_LAYERS = {
    name: index
    for index, name in [
        (0, "Conv_1a"), (2, "Conv_2b"), (3, "Conv_2c"), (5, "Mixed_3b"), (6, "Mixed_3c"),
        *enumerate((f"Mixed_4{letter}" for letter in "bcdef"), 8),
        (14, "Mixed_5b"), (15, "Mixed_5c"),
    ]
}  # fmt: skip


def rename_s3d(key: str) -> str:
    """Returns torchvision's name of a tensor of the published S3D."""
    layer, _, rest = key.partition(".")
    if layer not in _S3D_LAYERS:
        return key
    rest = rest.replace("branch0.0.", "branch0.")
    parts = {"conv1": "0.0", "bn1": "0.1", "conv2": "1.0", "bn2": "1.1", "conv": "0", "bn": "1"}
    rest = ".".join(parts.get(part, part) for part in rest.split("."))
    return f"features.{_S3D_LAYERS[layer]}.{rest}"


def rename_r2plus1d(key: str) -> str:
    """Returns our name of a tensor of ViCC's R(2+1)D."""
    parts = {"spatial_conv": "spatial", "temporal_conv": "temporal", "bn": "norm"}
    parts |= {"bn1": "norm1", "bn2": "norm2"}
    parts |= {"downsampleconv": "shortcut.0", "downsamplebn": "shortcut.1"}
    if match := re.fullmatch(r"conv([2-5])\.block1\.(.*)", key):
        rest = ".".join(parts.get(part, part) for part in match[2].split("."))
        return f"blocks.{int(match[1]) - 2}.{rest}"
    if key.startswith("conv1."):
        return "stem.0." + ".".join(parts.get(part, part) for part in key.split(".")[1:])
    return re.sub(r"^bn1\.", "stem.1.", key)


# The tensors of 2D3D-ResNets have the same names here and there.
BACKBONE_RULES: dict[str, Rename] = {"s3d": rename_s3d, "r2plus1d": rename_r2plus1d}
