"""Damaged containers cost no sound video anything, and each ends as decoded or with one sentence.

Thousands of mutated films go through extract-flow and pack as a user's folder would, with sound
films among them. The quick part runs with the other tests; the long one is

    python -m pytest -m slow tests/faults/test_mutated_containers.py   # 10,000 in chunks
    python tests/faults/mutate_containers.py FIRST CASES               # any of them, and a table

Case N is the same file on every machine that has the same encoders.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from container_elements import TAKE_APART, boxes, join, places
from container_mutations import FILMS, mutate, write_film
from measured_worker import watched
from mutated_films import Tally, kind, run_cases, undamaged

from vidssl.base.errors import VidsslError
from vidssl.extraction import process_pool
from vidssl.stages import pack
from vidssl.stages.pack import Pack
from vidssl.workspace.workspace import Workspace

QUICK, CHUNK, ALL = 240, 500, 10_000
MOST_MEMORY = 1024  # MiB that a worker holds at most for any of them; a sound film takes 150

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much memory")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    return {film: write_film(folder / f"v.{film}", film) for film in FILMS}


def test_what_is_taken_apart_can_be_put_together(films: dict[str, bytes]):
    for film, data in films.items():
        assert join(TAKE_APART[kind(film)](data)) == data, film
        damaged = [mutate(film, data, np.random.default_rng(n))[0] for n in range(20)]
        assert sum(each != data for each in damaged) > 15, film


def test_a_few_hundred(tmp_path: Path, films: dict[str, bytes]):
    expected = undamaged(tmp_path, films)
    tally = Tally()
    run_cases(tmp_path, films, expected, 0, QUICK, tally)
    assert_harmless(tally)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, ALL, CHUNK))
def test_ten_thousand(tmp_path: Path, films: dict[str, bytes], first: int):
    expected = undamaged(tmp_path, films)
    tally = Tally()
    run_cases(tmp_path, films, expected, first, CHUNK, tally)
    assert_harmless(tally)


def assert_harmless(tally: Tally) -> None:
    assert not tally.faults, tally.faults[:10]
    assert tally.memory[0] < MOST_MEMORY, tally.memory
    outcomes = {end for _, _, end in tally.ends}
    assert {"whole", "in part", "left out"} <= outcomes, "the mutations are of all degrees"


def test_a_few_kilobytes_fill_no_memory(
    tmp_path: Path, films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    """An MP4 file that announces 2^26 pictures of one byte: 2.4 GB of index, if it may."""
    monkeypatch.setattr(process_pool, "worker_memory", lambda workers: 512 << 20)
    elements = boxes(films["mp4"])
    count = (1 << 26).to_bytes(4, "big")
    claims = {b"stsz": bytes(7) + b"\1" + count, b"stsc": bytes(7) + b"\1" + bytes(3) + b"\1"}
    claims[b"stsc"] += count + bytes(3) + b"\1"
    for name, body in claims.items():
        box = next(e[i] for e, i in places(elements) if e[i].kind == name)
        box.body = body
    (tmp_path / "v.mp4").write_bytes(join(elements))
    log = tmp_path / "log"
    with watched(log), pytest.raises(VidsslError, match="cannot be used"):
        pack.run(Workspace(tmp_path / "w"), Pack(tmp_path / "v.mp4", workers=1))
    peaks = [int(line.split("\t")[1]) for line in log.read_text().splitlines()]
    assert max(peaks) < 600
