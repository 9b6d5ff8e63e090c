"""Reads a user's table of labels: a CSV file with a header, or lines of a path and a label."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidssl.base.errors import VidsslError
from vidssl.base.stored_json import read_bytes
from vidssl.dataset.annotations import LARGEST_TABLE
from vidssl.dataset.video import VIDEO_SUFFIXES

DELIMITERS = ",\t;"
# A path may hold blanks: it ends with the suffix of a video, or else before the last blank.
_PATH_AND_LABEL = re.compile(
    rf"(.+?(?:{'|'.join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES))}))\s+(.*)", re.I
)


@dataclass(frozen=True)
class LabelTable:
    """A table of labels.

    Attributes:
        columns: their names, in order.
        rows: {column: cell} of each row; cells are stripped, missing ones empty.
        notes: how the file was read, where that is not plain.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    notes: list[str]


def read_label_table(path: Path, names_video: Callable[[str], bool]) -> LabelTable:
    """Reads a table of labels, with or without a header.

    Args:
        names_video: tells whether a text names one of the videos.

    Raises:
        VidsslError: there is no such file, it is no regular one or not text, it is empty, it has
            two columns of one name, a line has more cells than the header, or a quote is not
            closed in its line; the sentence gives the line's number.
    """
    text = _read(path)
    first = next((line for line in text.split("\n") if line.strip()), None)
    if first is None:
        raise VidsslError(f"{path} is empty")
    for delimiter in DELIMITERS:
        if "path" in [cell.strip(' "') for cell in first.split(delimiter)]:
            return _with_header(path, text, delimiter)
    for delimiter in DELIMITERS:
        cell = first.split(delimiter)[0].strip(' "')
        if delimiter in first and _looks_like_path(cell, names_video):
            return _without_header(path, list(_records(path, text, delimiter)))
    written = _path_and_label(first)[0]
    if _looks_like_path(written, names_video) or re.fullmatch(r"path\s+label", first.strip()):
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        header = not _looks_like_path(written, names_video)
        return _without_header(path, [(n, _path_and_label(line)) for n, line in lines[header:]])
    return _with_header(path, text, ",")


def _with_header(path: Path, text: str, delimiter: str) -> LabelTable:
    records = _records(path, text, delimiter)
    number, header = next(records)
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise VidsslError(f"{path} has two columns named {twice[0]:.60} (line {number})")
    named = max(i for i, name in enumerate(header) if name or i == 0)
    rows = []
    for number, cells in records:
        if any(cells[named + 1 :]):
            raise VidsslError(
                f"{path} has a line of more cells than its header, which begins with "
                f"{cells[0]:.100}: put cells that hold a comma in quotes (line {number})"
            )
        # A short line lacks its last cells.
        rows.append(dict.fromkeys(header, "") | dict(zip(header, cells, strict=False)))
    return LabelTable(header, rows, [])


def _without_header(path: Path, records: list[tuple[int, list[str]]]) -> LabelTable:
    rows = []
    for number, cells in records:
        if any(cells[2:]):
            raise VidsslError(
                f"{path} has no header, so each line is a path and a label, and line {number} has "
                f"{len(cells)} cells: name the columns in a first line, such as path,label,split, "
                "or put cells that hold a comma in quotes"
            )
        if len(cells) < 2 or not cells[1]:
            raise VidsslError(f"{path} has no label in line {number}: {' '.join(cells):.100}")
        rows.append({"path": cells[0], "label": cells[1]})
    note = f"{path.name} has no header: each line is read as a path and a label"
    return LabelTable(["path", "label"], rows, [note])


def _path_and_label(line: str) -> list[str]:
    found = _PATH_AND_LABEL.fullmatch(line.strip())
    return [found[1], found[2].strip()] if found else line.strip().rsplit(None, 1)


def _looks_like_path(cell: str, names_video: Callable[[str], bool]) -> bool:
    return PurePosixPath(cell).suffix.lower() in VIDEO_SUFFIXES or names_video(cell)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each line that is not empty, and its cells."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    begin, cells = 1, []
    while True:
        fault = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = str(error)
        if reader.line_num > begin or fault == "unexpected end of data":
            raise VidsslError(
                f"{path} is no table: line {begin} has a quote that is not closed in that line"
            )
        if fault is not None:
            raise VidsslError(f"{path} is no table: {fault} (line {begin})")
        if any(cell.strip() for cell in cells):
            yield begin, [cell.strip() for cell in cells]
        begin = reader.line_num + 1


def _read(path: Path) -> str:
    """Returns a file's text, with \\n at the ends of its lines."""
    try:
        data = read_bytes(path, LARGEST_TABLE)
        return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig").read()
    except FileNotFoundError as error:
        raise VidsslError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise VidsslError(f"{path} is no table: it is not UTF-8 text") from None
