"""Videos that were left out, and why: quarantine.csv of flow and pack artifacts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vidssl.base.files import atomic_write

QUARANTINE_FILE = "quarantine.csv"

Row = tuple[str, str, str]  # id, video, reason


def write_quarantine(folder: Path, rows: Sequence[Row]) -> None:
    """Writes quarantine.csv: one line for each video that was left out."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "video", "reason"))
    table.writerows(sorted(rows))
    atomic_write(folder / QUARANTINE_FILE, text.getvalue().encode())


def read_quarantine(folder: Path) -> list[Row]:
    """Reads quarantine.csv: (id, video, reason)."""
    with (folder / QUARANTINE_FILE).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [(video, name, reason) for video, name, reason in rows]
