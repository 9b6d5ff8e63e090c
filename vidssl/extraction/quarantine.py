"""Reads and writes quarantine.csv, the list of videos that a run left out, and why."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from vidssl.base.errors import Remark, VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.stored_json import read_bytes
from vidssl.workspace.artifacts import FRAMES_ROLE, Artifact

QUARANTINE_FILE = "quarantine.csv"
COLUMNS = ("id", "video", "reason")

QuarantineRow = tuple[str, str, str]  # id, name, reason


def write_quarantine(folder: Path, rows: Sequence[QuarantineRow]) -> None:
    """Writes quarantine.csv, one line for each video that was left out, sorted by id."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(sorted(rows))
    # A reason may quote a file's name, which need not be UTF-8.
    atomic_write(folder / QUARANTINE_FILE, text.getvalue().encode("utf-8", "backslashreplace"))


def read_quarantine(folder: Path) -> list[QuarantineRow]:
    """Reads quarantine.csv: (id, name, reason) of each video that was left out.

    It is only a list of complaints, so a damaged one blocks nothing: the lines that can be read are
    returned, and a :class:`~vidssl.base.errors.Remark` says that others cannot.
    """
    rows, fault = _readable_rows(folder)
    if fault is not None:
        _remark(fault)
    return rows


def _readable_rows(folder: Path) -> tuple[list[QuarantineRow], str | None]:
    """Returns the rows that can be read, and what is wrong with the file, None if nothing is."""
    path = folder / QUARANTINE_FILE
    try:
        text = read_bytes(path).decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return [], f"{path} is missing"
    except VidsslError as error:
        return [], str(error)
    rows, damaged = _sound_rows(text)
    return rows, f"{path} is damaged in line {damaged[0]}" if damaged else None


def _sound_rows(text: str) -> tuple[list[QuarantineRow], list[int]]:
    """Returns the rows that have an id, a name and a reason, and the numbers of other lines.

    A second line of one id is another line: a video is left out once.
    """
    rows: list[QuarantineRow] = []
    seen: set[str] = set()
    damaged: list[int] = []
    table = csv.reader(io.StringIO(text))
    while True:
        try:
            row = next(table)
        except StopIteration:
            break
        except csv.Error:  # such as a field without end
            damaged.append(table.line_num)
            continue
        if len(row) == len(COLUMNS) and row[0] and row[0] not in seen:
            seen.add(row[0])
            rows.append((row[0], row[1], row[2]))
        else:
            damaged.append(table.line_num)
    if rows[:1] != [COLUMNS]:
        return rows, damaged or [1]
    return rows[1:], damaged


def _remark(fault: str) -> None:
    warnings.warn(
        Remark(f"{fault}: it cannot be told why every video was left out; the work goes on"),
        stacklevel=2,  # one place: who asks twice is told once
    )


def quarantine_of(artifact: Artifact) -> list[QuarantineRow]:
    """Reads an artifact's quarantine.csv, as :func:`read_quarantine`; says if it was changed.

    A pack of segments has none: videos were left out of the pack that holds its frames.
    """
    if FRAMES_ROLE in artifact.parents:
        return []
    changed = artifact.files.changed(QUARANTINE_FILE)
    rows, damage = _readable_rows(artifact.path)
    if fault := damage or changed:
        _remark(fault)
    return rows
