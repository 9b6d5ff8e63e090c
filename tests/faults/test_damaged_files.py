"""Whatever is damaged or fails: the same result, or one sentence; never a traceback or a guess."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from file_faults import WAYS, draw_file, files_of, inject, kind_of
from paths import ROOT

HERE = Path(__file__).parent


def run(script: str, *words: str) -> str:
    """Runs a script that damages, and checks that it found nothing that may not be.

    It is a process of its own because it forks, which is sound only before any thread is started.
    """
    done = subprocess.run(
        [sys.executable, HERE / script, *words],
        capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["tests/support", *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_a_few_faults_of_every_kind():
    said = run("quick_faults.py")
    tried = re.search(r"(\d+) tried, 0 ended as none may", said)
    assert tried is not None and int(tried[1]) > 35, said


@pytest.mark.slow
def test_two_thousand_damaged_files():
    assert "| all |" in run("damaged_files.py", "--cases", "0:2000")


@pytest.mark.slow
def test_a_machine_that_fails_at_every_place():
    assert "| scheduler |" in run("failing_machine.py")


# ── the harness itself


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("v001/shard-0000.h5", "v001/shard-0001.h5", "v002/shard-0000.h5"):
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name} has 3 lines\nand 12 words,\nor so\n".encode())
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_damages_what_it_names_and_nothing_else(folder, way):
    before = {file: (folder / file).read_bytes() for file in files_of(folder)}
    fault = WAYS[way](folder, "pack/v001/shard-0001.h5", random.Random(3))
    assert fault is not None
    after = {file: (folder / file).read_bytes() for file in files_of(folder)}
    named = {fault.file, *fault.others}
    assert {file for file in before | after if before.get(file) != after.get(file)} <= named
    assert before.keys() ^ after.keys() <= named
    assert before != after


def test_the_same_seed_gives_the_same_fault(folder, tmp_path):
    drawn = []
    for copy in ("one", "other"):
        shutil.copytree(folder / "pack", tmp_path / copy / "pack")
        chance = random.Random(11)
        file = draw_file(files_of(tmp_path / copy), chance)
        fault = inject(tmp_path / copy, file, chance)
        drawn.append((fault, [p.read_bytes() for p in sorted((tmp_path / copy).rglob("*.h5"))]))
    assert drawn[0] == drawn[1]


def test_kinds_of_files():
    assert kind_of("workspace.json") == "workspace.json"
    assert kind_of("pack/main/v001/shard-0001.h5") == "finished pack: shard-N.hN"
    unfinished = "flow/main/.run-0123456789abcdef/parts/0000-of-0003/part.json"
    assert kind_of(unfinished) == "unfinished flow: part.json"
