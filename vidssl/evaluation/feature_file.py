"""Writes features to an HDF5 file, and reads them back (docs/formats.md)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidssl.base.checksum_at_end import add_checksum, check_end
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.finite_values import rows_without_length
from vidssl.base.stored_json import DamagedFile, open_regular
from vidssl.evaluation.features import Features
from vidssl.shards.index import UNREADABLE
from vidssl.shards.table_checks import dataset_in, file_size
from vidssl.version import VERSION

FILE_KIND = "vidssl-features"
FILE_FORMAT = 1
TABLES = ("ids", "windows", "starts", "offsets")
SEALED = "sealed"  # attribute of a part that ends with its checksum; those of version 0.1 do not


def save_features(features: Features, path: Path) -> None:
    """Writes features as plain HDF5 (docs/formats.md), whole or not at all.

    Raises:
        VidsslError: the disk is full.
    """
    atomic_write(path, _as_hdf5(features))


def save_part(features: Features, path: Path) -> None:
    """Writes the features of some videos of an unfinished run, with a checksum at the end.

    Raises:
        VidsslError: the disk is full.
    """
    atomic_write(path, add_checksum(_as_hdf5(features, **{SEALED: True})))


def _as_hdf5(features: Features, **more: Any) -> bytes:
    # HDF5 writes into memory: on a full disk it would fail in ways of its own.
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file:
        file.attrs.update(kind=FILE_KIND, format_version=FILE_FORMAT, vidssl_version=VERSION)
        file.attrs.update(more)
        file["ids"] = np.array(features.ids, dtype=h5py.string_dtype())
        file["windows"] = features.windows.astype("<f4", copy=False)
        file["starts"] = features.starts.astype("<i8", copy=False)
        file["offsets"] = features.offsets.astype("<i8", copy=False)
    return whole.getvalue()


def load_features(path: Path) -> Features:
    """Reads what :func:`save_features` wrote.

    Raises:
        VidsslError: no such file, not features, of an unknown version, damaged, or with windows
            that have no finite length.
    """
    if not path.exists():
        raise VidsslError(f"there is no feature file {path}")
    return _load(path, path)[0]


def load_part(path: Path) -> Features:
    """Reads what :func:`save_part` wrote, after checking its checksum.

    Raises:
        VidsslError: as :func:`load_features`.
    """
    with open_regular(path) as file:
        data = file.read()
    ends_with_checksum = check_end(data, path)
    features, sealed = _load(io.BytesIO(data), path)
    if sealed and not ends_with_checksum:
        raise DamagedFile(f"{path} is damaged: the checksum at its end is missing")
    return features


def _load(source: Path | io.BytesIO, path: Path) -> tuple[Features, bool]:
    """Returns features, and whether the file must end with a checksum."""
    try:
        size = file_size(path)
        with h5py.File(source, "r", **({} if source is not path else {"locking": False})) as file:
            _check_kind(path, file)
            sealed = bool(file.attrs.get(SEALED, False))
            tables = {name: dataset_in(file, name, size)[()] for name in TABLES}
            ids = tuple(i.decode() for i in tables.pop("ids"))
            found = Features(ids=ids, **tables)
    except UNREADABLE as error:
        what = " ".join(str(error).split())
        raise DamagedFile(f"{path} is damaged: {what:.300}") from error
    _check_tables(path, found)
    if len(broken := rows_without_length(found.windows)):
        raise VidsslError(
            f"{path} has features that are no numbers (NaN or infinite), first in window "
            f"{broken[0]}: remove its folder, and look at the checkpoint that they are of"
        )
    return found, sealed


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
