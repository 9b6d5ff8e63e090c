"""Checks a shard's tables when it is opened: what they are made of, and what they say.

A shard may come from anyone. Nothing outside the file is followed (external and soft links, virtual
datasets, external storage), no filter runs, and no table is larger than the file that holds it. The
checks read a few numbers per video and two per view, and nothing per frame.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.stored_json import parse_json

MOST_VIEWS = 64
MOST = 1 << 31  # frames of a video, pixels of a side
MOST_STRIDE = 1 << 20
DIGEST_BYTES = 64  # SHA-256 in hex


def file_size(path: Path) -> int:
    """Returns the bytes of a regular file.

    Raises:
        VidsslError: it is a pipe, a device or a folder.
        OSError: it cannot be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise VidsslError(f"{path} is no regular file")
    return status.st_size


def group_in(parent: h5py.Group, name: str) -> h5py.Group:
    """Returns a group that lies in the file itself.

    Raises:
        ValueError: there is none, or it is a link.
    """
    found = _own(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{name} is no group")
    return found


def table_in(group: h5py.Group, name: str, kind: str, size: int) -> h5py.Dataset:
    """Returns a dataset of one dimension whose values lie in the file as they are.

    Args:
        kind: its dtype, such as "<i8"; "S" for texts of any one length.
        size: bytes of the file.

    Raises:
        ValueError: there is none, or it is something else.
    """
    table = dataset_in(group, name, size)
    if table.ndim != 1:
        raise ValueError(f"{table.name} has {table.ndim} dimensions")
    if table.dtype.kind != "S" if kind == "S" else table.dtype != np.dtype(kind):
        raise ValueError(f"{table.name} holds {table.dtype}, not {kind}")
    return table


def dataset_in(group: h5py.Group, name: str, size: int) -> h5py.Dataset:
    """Returns a dataset whose values lie in the file itself, in one piece and without a filter.

    Args:
        size: bytes of the file.

    Raises:
        ValueError: there is none, or it lies elsewhere, or is larger than the file.
    """
    found = _own(group, name)
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{group.name} has no table {name}")
    if found.is_virtual or found.external or found.chunks is not None:
        raise ValueError(f"{found.name} does not lie in the file in one piece")
    if found.id.get_create_plist().get_nfilters():
        raise ValueError(f"{found.name} has a filter")
    begin = found.id.get_offset()  # None where there is not one byte
    if found.nbytes and (begin is None or begin + found.nbytes > size):
        raise ValueError(f"{found.name} should have {found.nbytes} bytes, and the file has {size}")
    return found


def _own(parent: h5py.Group, name: str) -> Any:
    link = parent.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{parent.name} has no {name} of its own")
    return parent[name]


def read_params(group: h5py.Group) -> dict[str, Any]:
    """Returns a view's parameters.

    Raises:
        ValueError: they are no JSON object, or one of those that reading needs is impossible.
    """
    try:
        params = parse_json(group.attrs["params"], group.name)
    except VidsslError as error:
        raise ValueError(str(error)) from None
    if not isinstance(params, dict) or not isinstance(params.get("codec"), str):
        raise ValueError(f"the parameters of {group.name} name no codec")
    stride, bound = params.get("stride", 1), params.get("bound", 1.0)
    if type(stride) is not int or not 1 <= stride <= MOST_STRIDE:
        raise ValueError(f"{group.name} has a stride of {stride!r:.40}")
    if type(bound) not in (int, float) or not 0 < bound < 1e9:
        raise ValueError(f"{group.name} has a bound of {bound!r:.40}")
    return params


def check_columns(columns: Mapping[str, np.ndarray]) -> None:
    """Checks the values of the table of videos.

    Raises:
        ValueError: the first that is impossible.
    """
    count = len(columns["id"])
    if any(len(column) != count for column in columns.values()):
        raise ValueError("its columns differ in length")
    ids = columns["id"].tolist()
    if len(set(ids)) != count or b"" in ids:
        raise ValueError("a video has no id, or two have the same")
    for column in ("id", "path"):
        b"\n".join(columns[column].tolist()).decode()  # a UnicodeDecodeError is a ValueError
    digests = b"".join(columns["digest"].tolist())
    if len(digests) != DIGEST_BYTES * count or re.search(rb"[^0-9a-f]", digests):
        raise ValueError("a digest is none")
    if not np.all(np.isfinite(columns["fps"]) & (columns["fps"] >= 0)):
        raise ValueError("a frame rate is none")
    for column in ("frames", "width", "height"):
        if np.any((columns[column] < 0) | (columns[column] >= MOST)):
            raise ValueError(f"{column} of a video are impossible")


def check_offsets(group: h5py.Group, offsets: h5py.Dataset, size: int) -> None:
    """Checks that the offsets of frames begin at 0 and end at the last byte of the blobs.

    Those in between are checked where they are read: there may be a gigabyte of them.

    Raises:
        ValueError: they do not.
    """
    if int(offsets[0]) != 0 or int(offsets[-1]) != size:
        raise ValueError(f"the offsets of {group.name} do not fit its blobs")
