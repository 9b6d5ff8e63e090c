"""The log only tells how training went: whatever happened to it, training goes on."""

from __future__ import annotations

import csv
import json
import os

import pytest
from watching import Watching

from vidssl.engine.log import TrainingLog, log_of_rank_zero, read_log

ROWS = [{"epoch": 1, "step": n, "loss": 1.5 / n, "knn": None} for n in (1, 2, 3)]


def written(folder, rows=ROWS):
    with TrainingLog(folder, tensorboard=False) as log:
        for row in rows:
            log.append(row)
    return folder / "log.jsonl"


def test_an_earlier_attempt_s_rows_stay_and_those_after_them_go(tmp_path):
    written(tmp_path)
    with TrainingLog(tmp_path, keep=2, tensorboard=False) as log:
        assert (log.count, log.last, log.lost) == (2, ROWS[1], 0)
        log.append(ROWS[2] | {"loss": float("nan")})
    assert read_log(tmp_path) == [*ROWS[:2], ROWS[2] | {"loss": None}]
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


DAMAGES = {
    "not JSON": b"{",
    "a number": b"3",
    "a list": b"[1]",
    "an empty row": b"{}",
    "a text in it": b'{"step": "two"}',
    "deep": b"[" * 100_000,
    "endless": b'{"step": 1e999}',
    "large": b'{"step": ' + b"9" * 400 + b"}",
    "no UTF-8": b'{"step": \xff\xfe}',
    "zeros": bytes(40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_left_out_and_told(tmp_path, damage):
    path = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = DAMAGES[damage]
    path.write_bytes(b"\n".join(lines))
    watching = Watching()
    with log_of_rank_zero(tmp_path, 3, watching) as log:
        assert log.count == 2
    assert watching.said == [f"{path} was damaged: 1 row of figures are lost, and training goes on"]
    assert read_log(tmp_path) == [ROWS[0], ROWS[2]]


def test_a_half_written_last_row_that_was_not_saved_is_not_told(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text() + '{"epoch": 1, "st')
    with TrainingLog(tmp_path, keep=3, tensorboard=False) as log:
        assert log.lost == 0
    assert read_log(tmp_path) == ROWS


def test_what_is_no_file_is_replaced_and_links_are_not_followed(tmp_path):
    os.mkfifo(tmp_path / "log.jsonl")
    outside = tmp_path / "outside.csv"
    outside.write_text("mine")
    (tmp_path / "log.csv").symlink_to(outside)
    with TrainingLog(tmp_path, keep=1, tensorboard=False) as log:
        assert log.lost == 1
        log.append(ROWS[0])
    assert outside.read_text() == "mine"
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").open()] == [ROWS[0]]


def test_a_missing_log_blocks_nothing(tmp_path):
    with TrainingLog(tmp_path, keep=3, tensorboard=False) as log:
        assert (log.lost, log.count) == (3, 0)
