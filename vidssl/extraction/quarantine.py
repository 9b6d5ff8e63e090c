"""Reads and writes quarantine.csv, the list of videos that a run left out, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vidssl.base.files import atomic_write
from vidssl.workspace.artifacts import Artifact

QUARANTINE_FILE = "quarantine.csv"

QuarantineRow = tuple[str, str, str]  # id, name, reason


def write_quarantine(folder: Path, rows: Sequence[QuarantineRow]) -> None:
    """Writes quarantine.csv, one line for each video that was left out, sorted by id."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "video", "reason"))
    table.writerows(sorted(rows))
    atomic_write(folder / QUARANTINE_FILE, text.getvalue().encode())


def read_quarantine(folder: Path) -> list[QuarantineRow]:
    """Reads quarantine.csv: (id, name, reason) of each video that was left out."""
    with (folder / QUARANTINE_FILE).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [(video, name, reason) for video, name, reason in rows]


def quarantine_of(artifact: Artifact) -> list[QuarantineRow]:
    """Reads the quarantine.csv of an artifact.

    Raises:
        VidsslError: the file is missing, or was changed.
    """
    return read_quarantine(artifact.files.checked(QUARANTINE_FILE).parent)
