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
from vidssl.base.progress import SILENT, Progress
from vidssl.base.stored_json import DamagedFile, open_regular, parse_json
from vidssl.base.text import counted

Row = dict[str, float | int | None]


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
        self.path = folder / "log.jsonl"
        rows = read_log(folder)[:keep]
        self.lost = keep - len(rows)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.count = len(rows)
        self.last: Row = rows[-1] if rows else {}
        self._table = (folder / "log.csv").open("w", newline="", encoding="utf-8")
        self._writer: Any = None
        self._lines = self.path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder) if tensorboard else None
        for row in rows:
            self._tabulate(row)

    def append(self, row: Row) -> None:
        """Adds a row and writes it at once, so that the log can be followed."""
        clean = {key: _finite(value) for key, value in row.items()}
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
    """Returns the rows of a checkpoint's log up to the first line that is damaged or half written.

    Raises:
        VidsslError: log.jsonl is no regular file.
    """
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    with open_regular(path) as file:
        text = file.read().decode("utf-8", errors="replace")
    rows: list[Row] = []
    for line in text.split("\n"):
        try:
            row = parse_json(line, path)
        except DamagedFile:
            break
        if not _is_row(row):
            break
        rows.append(row)
    return rows


def _is_row(value: Any) -> bool:
    """Whether a value of JSON is a row: an object of numbers and nulls that counts its step."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("step"), int)
        and all(v is None or isinstance(v, int | float) for v in value.values())
    )


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
