"""Writes and reads encoders: `encoder.<view>.safetensors`, and the tensors of a method.

Evaluation and co-training read nothing else of a checkpoint. The safetensors header holds the
:class:`EncoderSpec` as JSON, so that the file alone is enough to rebuild the encoder. No pickled
code is read or written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.finite_values import check_finite
from vidssl.base.stored_json import parse_json
from vidssl.base.text import counted
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact, canonical_digest

ENCODER_FORMAT = 1
TENSORS_FORMAT = 1
TENSORS_FILE = "method.safetensors"


def encoder_file(view: str) -> str:
    """Returns the name of the file that holds a view's encoder in a checkpoint."""
    return f"encoder.{view}.safetensors"


def save_encoder(encoder: Encoder, folder: Path) -> Path:
    """Writes an encoder's weights and spec, atomically.

    Raises:
        VidsslError: a weight or a BatchNorm statistic is not finite.
    """
    check_finite(encoder.state_dict(), f"the {encoder.spec.view} encoder")
    about = {
        "kind": "encoder",
        "format": ENCODER_FORMAT,
        "vidssl_version": VERSION,
        "spec": encoder.spec.as_dict(),
    }
    # safetensors writes several keys of metadata in no fixed order. With one key, the same encoder
    # always has the same bytes.
    header = {"vidssl": json.dumps(about, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}
    path = folder / encoder_file(encoder.spec.view)
    atomic_write(path, safetensors.torch.save(state, header))
    return path


def load_encoder(path: Path) -> Encoder:
    """Rebuilds an encoder from its file, in eval mode, on the CPU.

    Raises:
        VidsslError: no such file, not an encoder, of an unknown format, damaged, or with values
            that are not finite.
    """
    spec = read_spec(path)
    encoder = Encoder(spec)
    try:
        state = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise VidsslError(f"{path} is damaged: {_first_line(error)}") from error
    wanted = encoder.state_dict()
    if different := sorted(
        name
        for name in wanted.keys() | state.keys()
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    ):
        raise VidsslError(
            f"{path} does not fit the backbone {spec.backbone} of this vidssl ({VERSION}): "
            f"{counted(len(different), 'tensor')} apart, such as {different[0]}"
        )
    check_finite(state, path)
    encoder.load_state_dict(state, strict=True)
    return encoder.eval()


def read_spec(path: Path) -> EncoderSpec:
    """Returns an encoder file's spec without reading its weights.

    Raises:
        VidsslError: as for :func:`load_encoder`.
    """
    if not path.exists():
        raise VidsslError(f"there is no encoder file {path}")
    about = _header(path)
    if about.get("kind") != "encoder":
        raise VidsslError(f"{path} is no vidssl encoder: its header does not say so")
    if about.get("format") != ENCODER_FORMAT:
        raise VidsslError(
            f"{path} has encoder format {about.get('format')}, and this vidssl ({VERSION}) "
            f"reads format {ENCODER_FORMAT}"
        )
    return EncoderSpec.from_file(about.get("spec"), path)


def _header(path: Path) -> dict[str, Any]:
    """Returns vidssl's entry in the header of a safetensors file, empty if there is none."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _json_object((file.metadata() or {}).get("vidssl", ""))
    except safetensors.SafetensorError as error:
        raise VidsslError(f"{path} is damaged: {_first_line(error)}") from error


def _json_object(text: str) -> dict[str, Any]:
    """Returns the JSON object in a text, empty if it holds none."""
    try:
        value = parse_json(text, "header")
    except VidsslError:
        return {}
    return value if isinstance(value, dict) else {}


def save_tensors(tensors: Mapping[str, torch.Tensor], folder: Path) -> Path:
    """Writes the tensors that a method leaves to later runs beside its encoders, atomically.

    Raises:
        VidsslError: a value is not finite.
    """
    check_finite(tensors, "what the method keeps beside its encoders")
    about = {"kind": "method", "format": TENSORS_FORMAT, "vidssl_version": VERSION}
    header = {"vidssl": json.dumps(about, sort_keys=True)}
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(folder / TENSORS_FILE, safetensors.torch.save(state, header))
    return folder / TENSORS_FILE


def checkpoint_tensors(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    """Loads the tensors that :func:`save_tensors` wrote; empty for a checkpoint without them.

    Raises:
        VidsslError: the file was changed, is of an unknown format, or has values that are not
            finite.
    """
    if TENSORS_FILE not in checkpoint.payload:
        return {}
    path = checkpoint.files.checked(TENSORS_FILE)
    about = _header(path)
    if about.get("kind") != "method" or about.get("format") != TENSORS_FORMAT:
        raise VidsslError(
            f"{path} has tensors of format {about.get('format')}, and this vidssl ({VERSION}) "
            f"reads format {TENSORS_FORMAT}"
        )
    tensors = safetensors.torch.load_file(path)
    check_finite(tensors, path)
    return tensors


def checkpoint_views(checkpoint: Artifact) -> list[str]:
    """Returns the views of the encoders that a checkpoint holds, sorted."""
    names = [p for p in checkpoint.payload if p.startswith("encoder.")]
    return sorted(name.split(".")[1] for name in names)


def checkpoint_spec(checkpoint: Artifact, view: str) -> EncoderSpec:
    """Returns the spec of a checkpoint's encoder without reading its weights.

    Raises:
        VidsslError: as for :func:`load_encoder`.
    """
    return read_spec(checkpoint.files.sized(encoder_file(view)))


def checkpoint_encoder(checkpoint: Artifact, view: str) -> Encoder:
    """Checks the bytes of a checkpoint's encoder against the manifest, and loads it.

    Raises:
        VidsslError: there is no encoder for that view, or the file was changed.
    """
    name = encoder_file(view)
    if name not in checkpoint.payload:
        have = ", ".join(checkpoint_views(checkpoint)) or "none"
        raise VidsslError(f"{checkpoint.label} has no {view} encoder; it has {have}")
    return load_encoder(checkpoint.files.checked(name))


def weights_digest(
    encoders: Mapping[str, Encoder], tensors: Mapping[str, torch.Tensor] | None = None
) -> str:
    """Returns one digest of the encoders' specs and weights; it does not depend on file formats.

    Args:
        tensors: that the method leaves beside the encoders.
    """
    parts: dict[str, Any] = {}
    for view, encoder in encoders.items():
        parts[view] = [encoder.spec.as_dict(), _digest_of(encoder.state_dict())]
    if tensors:
        parts["method"] = _digest_of(tensors)
    return canonical_digest(parts)


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    content = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        content.update(name.encode())
        content.update(_tensor_bytes(value))
    return content.hexdigest()


def _tensor_bytes(value: torch.Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
