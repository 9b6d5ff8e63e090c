"""The log of a training: log.jsonl and log.csv, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from vidssl.base import distributed
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write, system_errors_name
from vidssl.base.progress import SILENT, Progress
from vidssl.base.stored_json import parse_json, read_bytes
from vidssl.base.text import counted

Row = dict[str, float | int | None]

LOG_FILE = "log.jsonl"
LARGEST_LOG = 1 << 30  # bytes; a row has about 300, so that is millions of them


class TrainingLog:
    """Appends rows of figures to the files of a log.

    JSON has no NaN: a figure that is not defined is null there and empty in the CSV.

    Args:
        keep: rows of an earlier attempt that stay; the rows after them are removed.

    Attributes:
        count: rows so far.
        lost: how many of the rows to keep were not there, or not readable.
    """

    def __init__(self, folder: Path, keep: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / LOG_FILE
        rows = _kept(self.path, keep)
        self.lost = keep - len(rows)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        atomic_write(self.path, text.encode())  # a kill meanwhile loses no row
        self.count = len(rows)
        self.last: Row = rows[-1] if rows else {}
        table = folder / "log.csv"
        table.unlink(missing_ok=True)  # whatever lies there is not written through
        self._table = table.open("x", newline="", encoding="utf-8")
        self._writer: Any = None
        self._lines = self.path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder) if tensorboard else None
        for row in rows:
            self._tabulate(row)

    def append(self, row: Row) -> None:
        """Adds a row and writes it at once, so that the log can be followed."""
        clean = {key: _finite(value) for key, value in row.items()}
        with system_errors_name(self.path):
            self._lines.write(json.dumps(clean) + "\n")
            self._lines.flush()
            self._tabulate(clean)
        self.count += 1
        if self._board is not None:
            for key, value in clean.items():
                if value is not None and key != "step":
                    self._board.add_scalar(key, value, clean["step"])

    def _tabulate(self, row: Row) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._table, list(row), extrasaction="ignore")
            self._writer.writeheader()
        self._writer.writerow(row)
        self._table.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._table.close()
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[Row]:
    """Returns the rows of a checkpoint's log that can be read; a half-written last line cannot.

    Raises:
        VidsslError: log.jsonl is no regular file, or cannot be read.
    """
    return [row for row in _lines_of(folder / LOG_FILE) if row is not None]


def parse_log(data: bytes, where: Path | str) -> list[Row]:
    """Returns the rows in the bytes of a log.jsonl; lines that are no row are left out.

    Args:
        where: the path of the file, for sentences.
    """
    path = Path(where)
    lines = data.decode("utf-8", "replace").split("\n")
    return [row for line in lines if line and (row := _row(line, path)) is not None]


def _kept(path: Path, keep: int) -> list[Row]:
    """Returns those of the first `keep` rows of a log that can be read."""
    try:
        return [row for row in _lines_of(path)[:keep] if row is not None]
    except VidsslError:  # a log only tells how training went, and never keeps it from going on
        return []


def _lines_of(path: Path) -> list[Row | None]:
    """Returns each line of a log as a row, None where it is none.

    Raises:
        VidsslError: the file cannot be read.
    """
    try:
        text = read_bytes(path, LARGEST_LOG).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [_row(line, path) for line in text.split("\n") if line]


def _row(line: str, path: Path) -> Row | None:
    try:
        found = parse_json(line, path)
    except VidsslError:
        return None
    counted = isinstance(found, dict) and isinstance(found.get("step"), int)
    sound = counted and all(map(_is_figure, found.values()))
    return found if sound else None


def _is_figure(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _finite(value: float | int | None) -> float | int | None:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))


class RankLog:
    """The rows of a log, written to files on rank 0 and only counted on the other ranks.

    Attributes:
        count: rows so far.
        last: the last row.
    """

    def __init__(self, log: TrainingLog | None) -> None:
        self._log = log
        self.count = 0 if log is None else log.count
        self.last: Row = {} if log is None else log.last

    def append(self, row: Row) -> None:
        """Adds a row."""
        self.last = row
        self.count += 1
        if self._log is not None:
            self._log.append(row)


@contextlib.contextmanager
def log_of_rank_zero(folder: Path, keep: int, progress: Progress = SILENT) -> Iterator[RankLog]:
    """Opens the log of a folder on rank 0, and a log without files on the other ranks.

    Args:
        keep: rows of an earlier attempt that stay.
        progress: is told if some of them are lost; a log never stops a training.
    """
    if distributed.rank() == 0:
        with TrainingLog(folder, keep) as log:
            if log.lost:
                progress.say(
                    f"{log.path} was damaged: {counted(log.lost, 'row')} of figures are lost, and "
                    "training goes on"
                )
            yield RankLog(log)
    else:
        yield RankLog(None)
