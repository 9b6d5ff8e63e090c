"""Writes features to an HDF5 file, and reads them back (docs/formats.md)."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.evaluation.features import Features
from vidssl.shards.index import UNREADABLE
from vidssl.shards.table_checks import dataset_in, file_size
from vidssl.version import VERSION

FILE_KIND = "vidssl-features"
FILE_FORMAT = 1
TABLES = ("ids", "windows", "starts", "offsets")


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
        size = file_size(path)
        with h5py.File(path, "r", locking=False) as file:
            _check_kind(path, file)
            tables = {name: dataset_in(file, name, size)[()] for name in TABLES}
            ids = tuple(i.decode() for i in tables.pop("ids"))
            return Features(ids=ids, **tables)
    except UNREADABLE as error:
        what = " ".join(str(error).split())
        raise VidsslError(f"{path} is damaged: {what:.300}") from error


def _check_kind(path: Path, file: h5py.File) -> None:
    if file.attrs.get("kind") != FILE_KIND:
        raise VidsslError(f"{path} holds no vidssl features")
    if file.attrs.get("format_version") != FILE_FORMAT:
        raise VidsslError(
            f"{path} has feature format version {file.attrs.get('format_version')}, and this "
            f"vidssl ({VERSION}) reads version {FILE_FORMAT}"
        )
