"""Writes features to an HDF5 file, and reads them back (docs/formats.md)."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.evaluation.features import Features
from vidssl.version import VERSION

FILE_KIND = "vidssl-features"
FILE_FORMAT = 1


def save_features(features: Features, path: Path) -> None:
    """Writes features as plain HDF5 (docs/formats.md), whole or not at all.

    Raises:
        VidsslError: the disk is full.
    """
    # HDF5 writes into memory: on a full disk it would fail in ways of its own.
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file:
        file.attrs.update(kind=FILE_KIND, format_version=FILE_FORMAT, vidssl_version=VERSION)
        file["ids"] = np.array(features.ids, dtype=h5py.string_dtype())
        file["windows"] = features.windows.astype("<f4", copy=False)
        file["starts"] = features.starts.astype("<i8", copy=False)
        file["offsets"] = features.offsets.astype("<i8", copy=False)
    atomic_write(path, whole.getvalue())


def load_features(path: Path) -> Features:
    """Reads what :func:`save_features` wrote.

    Raises:
        VidsslError: no such file, not features, of an unknown version, or damaged.
    """
    if not path.exists():
        raise VidsslError(f"there is no feature file {path}")
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_kind(path, file)
            found = Features(
                ids=tuple(i.decode() for i in file["ids"][()]),
                windows=file["windows"][()],
                starts=file["starts"][()],
                offsets=file["offsets"][()],
            )
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise VidsslError(f"{path} is damaged: {error}") from error
    _check_tables(path, found)
    return found


def _check_tables(path: Path, found: Features) -> None:
    """Checks that the tables of a feature file fit together and name no video twice."""
    tables = found.windows, found.starts, found.offsets
    shapes = [table.shape for table in tables]
    count = len(found.windows) if found.windows.ndim == 2 else -1
    if shapes[1:] != [(count,), (len(found.ids) + 1,)] or any(
        t.dtype.kind not in "fi" for t in tables
    ):
        raise VidsslError(f"{path} is damaged: its tables do not fit together")
    offsets = found.offsets
    if offsets[0] != 0 or offsets[-1] != count or np.any(np.diff(offsets) < 1):
        raise VidsslError(f"{path} is damaged: its videos do not share its windows")
    if len(set(found.ids)) < len(found.ids):
        raise VidsslError(f"{path} is damaged: it has a video twice")


def _check_kind(path: Path, file: h5py.File) -> None:
    if file.attrs.get("kind") != FILE_KIND:
        raise VidsslError(f"{path} holds no vidssl features")
    if file.attrs.get("format_version") != FILE_FORMAT:
        raise VidsslError(
            f"{path} has feature format version {file.attrs.get('format_version')}, and this "
            f"vidssl ({VERSION}) reads version {FILE_FORMAT}"
        )
