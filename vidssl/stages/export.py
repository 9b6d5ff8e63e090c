"""`vidssl export`: writes an encoder for other programs, with a card that describes its input."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.files import atomic_write, write_json
from vidssl.base.optional_packages import require_extra
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.evaluated_encoders import find_encoder
from vidssl.retrieval.exported_encoder import CARD, STORED, params_of_own_pack
from vidssl.version import VERSION
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, encoder_file
from vidssl.workspace.workspace import Workspace

CARD_FORMAT = 1


@dataclass(frozen=True)
class ExportOptions:
    """Options of `vidssl export`.

    Attributes:
        format: of :data:`FORMATS`.
        checkpoint: None: the newest of the view.
        stream: the view; None: the checkpoint's own, or rgb.
        out: the new folder; None: NAME-vNNN-STREAM-FORMAT in the current directory.
    """

    format: str = "safetensors"
    checkpoint: str | None = None
    stream: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class ExportResult:
    """The written files (the card among them), and the content of the card."""

    files: list[Path]
    card: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        return {"files": [str(path) for path in self.files], "card": self.card}


class Embedding(nn.Module):
    """An encoder with one `forward`: window to embedding, and to projection if it has a head.

    A window is [B, C, T, S, S], or [B, N, C, T, S, S] for encoders of N blocks. The embedding
    [B, D] is not normalised; the projection [B, P] has unit length.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = encoder.spec.blocks

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        if self.blocks > 1:
            return (self.encoder.embed(clip),)
        pooled = self.encoder.pool(clip)
        if self.encoder.head is None:
            return (pooled,)
        return pooled, nn.functional.normalize(self.encoder.head(pooled), dim=1)


def run(workspace: Workspace, options: ExportOptions, progress: Progress = SILENT) -> ExportResult:
    """Writes one encoder in a format that other programs read without vidssl.

    Raises:
        VidsslError: no such checkpoint, the folder is there already, or an extra is missing.
    """
    checkpoint, view, folder = find(workspace, options)
    encoder = checkpoint_encoder(checkpoint, view)
    progress.say(f"export: {view} of {checkpoint.label} as {options.format}")
    blob, name = FORMATS[options.format](encoder, checkpoint)
    card = card_of(checkpoint, encoder.spec, encoder.dim) | {"file": name}
    card |= _stored_frames(workspace, checkpoint, view, progress)
    folder.mkdir(parents=True)
    try:
        atomic_write(folder / name, blob)
        write_json(folder / CARD, card)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # else the next try would be refused
        raise
    return ExportResult([folder / name, folder / CARD], card)


def _stored_frames(
    workspace: Workspace, checkpoint: Artifact, view: str, progress: Progress
) -> dict[str, Any]:
    """Returns the card's entry on how the frames that it was trained on were made."""
    try:
        params = params_of_own_pack(workspace, checkpoint)
    except VidsslError as error:  # an encoder is whole without it
        progress.say(f"the card does not say how frames were stored: {error}")
        return {}
    return {} if params is None or view not in params else {STORED: {view: params[view]}}


def find(workspace: Workspace, options: ExportOptions) -> tuple[Artifact, str, Path]:
    """Returns the checkpoint, its view, and the folder to write.

    Raises:
        VidsslError: no such checkpoint, the folder is there already, or an extra is missing.
    """
    if options.format not in FORMATS:
        raise UsageError(
            f"there is no format {options.format}{nearest_name(options.format, FORMATS)}; "
            f"there are {', '.join(FORMATS)}"
        )
    if options.format == "onnx":
        require_extra("export", "export to ONNX", "onnx", "onnxscript")
    if options.stream is not None:
        get_view(options.stream)
    checkpoint, view = find_encoder(workspace, options.checkpoint, options.stream)
    label = f"{checkpoint.name}-v{checkpoint.version:03d}-{view}-{options.format}"
    folder = options.out or Path(label)
    if folder.exists():
        raise VidsslError(f"{folder} is there already: name another folder with --out")
    return checkpoint, view, folder


def card_of(checkpoint: Artifact, spec: EncoderSpec, width: int) -> dict[str, Any]:
    """Returns the card: the input that an exported encoder takes, and its origin.

    Args:
        width: D, of the embedding.
    """
    shape: list[int | str] = ["batch", spec.channels, spec.frames, spec.size, spec.size]
    if spec.blocks > 1:
        shape.insert(1, spec.blocks)
    return {
        "vidssl": "exported encoder",
        "format": CARD_FORMAT,
        "vidssl_version": VERSION,
        "checkpoint": checkpoint.label,
        "digest": checkpoint.digest,
        "method": checkpoint.summary.get("method") or checkpoint.recipe.get("method_name"),
        "view": spec.view,
        "backbone": spec.backbone,
        "frames": spec.window,
        "stride": spec.stride,
        "size": spec.size,
        "input": {
            "name": "clip",
            "type": "float32",
            "shape": shape,
            "normalisation": get_view(spec.view).normalisation(spec.presentation),
        },
        "outputs": {"embedding": width} | ({"projection": spec.project} if spec.project else {}),
    }


# ── formats ──────────────────────────────────────────────────────────────────────────────────


def _safetensors(encoder: Encoder, checkpoint: Artifact) -> tuple[bytes, str]:
    name = encoder_file(encoder.spec.view)
    return checkpoint.files.read(name), name


def _torch_export(encoder: Encoder, checkpoint: Artifact) -> tuple[bytes, str]:
    import io

    program = torch.export.export(
        Embedding(encoder).eval(),
        (_example(encoder.spec),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns of weights that share no storage; the file is complete all the same.
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, file)
    return file.getvalue(), "encoder.pt2"


def _onnx(encoder: Encoder, checkpoint: Artifact) -> tuple[bytes, str]:
    outputs = ["embedding", "projection"] if encoder.head is not None else ["embedding"]
    program = torch.onnx.export(
        Embedding(encoder).eval(),
        (_example(encoder.spec),),
        input_names=["clip"],
        output_names=outputs,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString(), "encoder.onnx"


def _example(spec: EncoderSpec) -> Tensor:
    # Two windows: torch.export takes a batch size of 1 for a constant.
    blocks = (spec.blocks,) if spec.blocks > 1 else ()
    return torch.zeros(2, *blocks, spec.channels, spec.frames, spec.size, spec.size)


FORMATS: dict[str, Callable[[Encoder, Artifact], tuple[bytes, str]]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch-export": _torch_export,
}
