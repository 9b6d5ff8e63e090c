"""Writes vectors of videos or of windows: Parquet, npy with a CSV of rows, HDF5 or CSV.

Legend: N rows, D feature width.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.files import atomic_write
from vidssl.base.optional_packages import require_extra

COLUMNS = ("path", "begin", "end", "label")


@dataclass(frozen=True)
class VectorRow:
    """What a vector is of.

    Attributes:
        path: as it was found: a folder's name as typed, and the path below it.
        begin, end: in seconds; None if the frame rate is unknown.
        label: None if it is unknown.
    """

    path: str
    begin: float | None
    end: float | None
    label: str | None


@dataclass(frozen=True)
class VectorTable:
    """Vectors and what they are of.

    Attributes:
        vectors: float32 [N, D].
        about: the encoder and its preprocessing, as JSON values.
    """

    rows: Sequence[VectorRow]
    vectors: np.ndarray
    about: Mapping[str, Any]

    def write(self, path: Path) -> list[Path]:
        """Writes the format that the suffix names, each file whole or not at all.

        Returns:
            The files: one, or for .npy two.
        """
        WRITERS[path.suffix.lower()](self, path)
        return output_files(path)


def output_files(path: Path) -> list[Path]:
    """Returns the files that :meth:`VectorTable.write` makes."""
    return [path, path.with_suffix(".csv")] if path.suffix.lower() == ".npy" else [path]


def check_output(path: Path) -> None:
    """Checks that vectors can be written to a path; called before any work.

    Raises:
        VidsslError: the suffix is unknown, the folder is missing, or an extra is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(
            f"vectors cannot be written as {path.name}{nearest_name(suffix, WRITERS)}: its name "
            f"must end with {', '.join(WRITERS)}"
        )
    if suffix == ".parquet":
        require_extra("parquet", "a .parquet file", "pyarrow", more=", or name it .npy or .h5")
    if not path.parent.is_dir():
        raise VidsslError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise VidsslError(f"{path} is a folder: name a file to write")


# ── formats ──────────────────────────────────────────────────────────────────────────────────


def _write_parquet(table: VectorTable, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows, (count, width) = table.rows, table.vectors.shape
    flat = pyarrow.array(np.ascontiguousarray(table.vectors).reshape(count * width))
    columns = {
        "path": pyarrow.array([row.path for row in rows], pyarrow.string()),
        "begin": pyarrow.array([row.begin for row in rows], pyarrow.float64()),
        "end": pyarrow.array([row.end for row in rows], pyarrow.float64()),
        "label": pyarrow.array([row.label for row in rows], pyarrow.string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, width),
    }
    made = pyarrow.table(columns).replace_schema_metadata({"vidssl": _as_text(table.about)})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(made, sink)
    atomic_write(path, sink.getvalue())


def _write_npy(table: VectorTable, path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, table.vectors.astype("<f4", copy=False), allow_pickle=False)
    atomic_write(path.with_suffix(".csv"), _rows_as_csv(table.rows))
    atomic_write(path, whole.getvalue())


def _write_hdf5(table: VectorTable, path: Path) -> None:
    # HDF5 writes into memory: on a full disk it would fail in ways of its own.
    whole, text = io.BytesIO(), h5py.string_dtype()
    with h5py.File(whole, "w") as file:
        file.attrs.update(kind="vidssl-vectors", format_version=1, about=_as_text(table.about))
        file["path"] = np.array([row.path for row in table.rows], dtype=text)
        file["label"] = np.array([row.label or "" for row in table.rows], dtype=text)
        for name in ("begin", "end"):
            seconds = [getattr(row, name) for row in table.rows]
            file[name] = np.array([np.nan if s is None else s for s in seconds], "<f8")
        file["vector"] = table.vectors.astype("<f4", copy=False)
    atomic_write(path, whole.getvalue())


def _write_csv(table: VectorTable, path: Path) -> None:
    atomic_write(path, _rows_as_csv(table.rows, table.vectors))


def _rows_as_csv(rows: Sequence[VectorRow], vectors: np.ndarray | None = None) -> bytes:
    """Returns one line for each row, with the D numbers of its vector where they are given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    width = 0 if vectors is None else vectors.shape[1]
    writer.writerow([*COLUMNS, *(f"v{d}" for d in range(width))])
    for number, row in enumerate(rows):
        fields = [row.path, row.begin, row.end, row.label]
        # str of a float32 is the shortest text that reads back as the same float32.
        numbers = [] if vectors is None else [str(value) for value in vectors[number]]
        writer.writerow(["" if value is None else value for value in fields] + numbers)
    return text.getvalue().encode()


def _as_text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


WRITERS: dict[str, Callable[[VectorTable, Path], None]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".h5": _write_hdf5,
    ".csv": _write_csv,
}


# ── videos that were left out ────────────────────────────────────────────────────────────────


def left_out_file(path: Path) -> Path:
    """Returns the path of the list of videos that are not among the rows of an output."""
    return path.with_name(f"{path.name}.quarantine.csv")


def write_left_out(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Writes (path, reason) of each video that was left out; no list where there is none."""
    place = left_out_file(path)
    if not rows:
        place.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "reason"))
    writer.writerows(rows)
    atomic_write(place, text.getvalue().encode("utf-8", "backslashreplace"))
