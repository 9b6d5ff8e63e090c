"""Reads an encoder that `vidssl export` wrote, and how the frames of its training were stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidssl.backbones import Encoder
from vidssl.base.errors import VidsslError
from vidssl.base.files import file_digest
from vidssl.base.stored_json import read_json, record
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import load_encoder
from vidssl.workspace.workspace import Workspace

CARD = "card.json"
STORED = "stored_frames"  # of the card: {view: the parameters that the pack records}
Params = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ExportedEncoder:
    """An encoder outside of a workspace.

    Attributes:
        file: the safetensors file.
        params: {view: how frames were stored}; None: the card does not say, or there is no card.
    """

    encoder: Encoder
    file: Path
    digest: str
    params: Params | None


@dataclass(frozen=True)
class _Card:
    vidssl: str
    file: str
    stored_frames: dict[str, dict[str, Any]] | None = None


def is_exported(text: str) -> bool:
    """Whether this names an exported encoder's file or folder, and no checkpoint of a workspace."""
    path = Path(text)
    return path.suffix == ".safetensors" or (path / CARD).is_file()


def read_exported(path: Path) -> ExportedEncoder:
    """Reads an exported folder, or an encoder's safetensors file.

    Raises:
        VidsslError: it is missing or damaged, or of a format that only other programs read.
    """
    folder = path if path.is_dir() else path.parent
    card = _read_card(folder / CARD) if (folder / CARD).is_file() else None
    file = path
    if path.is_dir():
        assert card is not None  # is_exported has seen it
        file = folder / Path(card.file).name
    if file.suffix != ".safetensors":
        raise VidsslError(
            f"{file} is for other programs: embed reads what vidssl export --format safetensors "
            "writes"
        )
    encoder = load_encoder(file)
    is_of_card = card is not None and card.file == file.name
    return ExportedEncoder(
        encoder, file, file_digest(file), card.stored_frames if card and is_of_card else None
    )


def _read_card(path: Path) -> _Card:
    card = record(_Card, read_json(path), path, ignore=True)
    if card.vidssl != "exported encoder":
        raise VidsslError(f"{path} is no card of an encoder that vidssl exported")
    return card


# ── what a card or a checkpoint says of stored frames ────────────────────────────────────────


def params_of_own_pack(workspace: Workspace, checkpoint: Artifact) -> Params | None:
    """Returns how the frames of a checkpoint's pack were stored; None if it is not there.

    Raises:
        VidsslError: the pack is damaged.
    """
    digest = checkpoint.parents.get("pack")
    pack = None if digest is None else workspace.by_digest(digest)
    return None if pack is None or pack.kind != "pack" else params_of(pack)


def params_of(pack: Artifact) -> Params:
    """Returns how the frames of a pack were stored: {view: parameters}.

    Raises:
        VidsslError: the pack is damaged.
    """
    with open_shards(pack) as reader:
        return {view: dict(params) for view, params in reader.views.items()}
