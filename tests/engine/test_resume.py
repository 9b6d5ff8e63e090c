"""resume.pt and its earlier generation: what is damaged is never trained on."""

from __future__ import annotations

import zipfile
from pathlib import Path

import build_golden_formats as golden
import numpy as np
import pytest
import torch
from seeded_damage import KINDS, damaged

from vidssl.base.errors import VidsslError
from vidssl.engine.resume import (
    PREVIOUS_FILE,
    RESUME_FILE,
    Saves,
    drop_earlier_states,
    load_resume,
    save_resume,
)

CASES = 27


def training(step: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A training after some steps; its weights tell how many."""
    module, optimizer = golden.small_training()
    with torch.no_grad():
        module.weight.fill_(float(step))
        module.queue.fill_(float(step))
    return module, optimizer


def saves(folder: Path, *steps: int) -> None:
    for step in steps:
        save_resume(folder, *training(step), epoch=0, step_in_epoch=step, log_rows=step)


def loaded(folder: Path) -> tuple[int, list[str]]:
    """Gives the step that is gone on from, and what was said; all tensors must be that step's."""
    module, optimizer = training(-1)
    said: list[str] = []
    found = load_resume(folder, module, optimizer, said.append)
    step = found["step_in_epoch"]
    assert found == {"epoch": 0, "step_in_epoch": step, "log_rows": step}
    assert module.weight.eq(step).all() and module.queue.eq(step).all()
    exp_avg = optimizer.state_dict()["state"][0]["exp_avg"]
    assert exp_avg.equal(golden.small_training()[1].state_dict()["state"][0]["exp_avg"])
    return step, said


def test_two_generations_are_kept(tmp_path):
    saves(tmp_path, 1)
    assert not (tmp_path / PREVIOUS_FILE).exists()
    saves(tmp_path, 2, 3)
    assert loaded(tmp_path) == (3, [])
    (tmp_path / RESUME_FILE).write_bytes((tmp_path / PREVIOUS_FILE).read_bytes())
    assert loaded(tmp_path) == (2, [])
    drop_earlier_states(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RESUME_FILE]


def test_any_reader_of_archives_reads_it(tmp_path):
    saves(tmp_path, 1)
    with zipfile.ZipFile(tmp_path / RESUME_FILE) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"vidssl sha256 ")
    assert torch.load(tmp_path / RESUME_FILE, weights_only=True)["step_in_epoch"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_seeded_faults_in_the_newest_cost_one_generation(tmp_path, kind):
    saves(tmp_path, 1, 2)
    whole = (tmp_path / RESUME_FILE).read_bytes()
    draw = np.random.default_rng(11)
    for _ in range(CASES // 3):
        changed = damaged(whole, kind, draw)
        (tmp_path / RESUME_FILE).write_bytes(changed)
        if changed == whole:
            assert loaded(tmp_path) == (2, [])
            continue
        step, (sentence,) = loaded(tmp_path)
        assert step == 1
        assert sentence.startswith(f"{tmp_path / RESUME_FILE} is damaged: ")
        assert sentence.endswith(f"goes on from {PREVIOUS_FILE}, which was saved before it")


@pytest.mark.parametrize("kind", KINDS)
def test_seeded_faults_in_both_are_one_sentence(tmp_path, kind):
    saves(tmp_path, 1, 2)
    draw = np.random.default_rng(12)
    for name in (RESUME_FILE, PREVIOUS_FILE):
        whole = (tmp_path / name).read_bytes()
        while (changed := damaged(whole, kind, draw)) == whole:
            pass
        (tmp_path / name).write_bytes(changed)
    with pytest.raises(VidsslError, match="remove both files, and the same command trains") as e:
        loaded(tmp_path)
    assert "\n" not in str(e.value) and "weights_only" not in str(e.value)


def test_the_lost_end_of_a_file_is_noticed(tmp_path):
    """Without its checksum it looks like one of version 0.1, which had none."""
    saves(tmp_path, 1, 2)
    path = tmp_path / RESUME_FILE
    path.write_bytes(path.read_bytes()[:-78])
    torch.load(path, weights_only=True)
    step, (sentence,) = loaded(tmp_path)
    assert step == 1 and "the checksum at its end is missing" in sentence


def test_a_file_of_version_01_has_no_checksum_and_is_read(tmp_path):
    saves(tmp_path, 1)
    path = tmp_path / RESUME_FILE
    state = torch.load(path, weights_only=True)
    del state["sealed"]
    torch.save(state, path)
    assert loaded(tmp_path) == (1, [])


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"world_size": "1"},
        {"ranks": []},
        {"ranks": None},
        {"parameters": {"weight": torch.zeros(7)}},
        {"parameters": {"weight": torch.full((2, 3), torch.nan)}},
        {"optimizer": {}},
        {"log_rows": None},
    ],
)
def test_a_strange_state_costs_one_generation(tmp_path, change):
    saves(tmp_path, 1, 2)
    path = tmp_path / RESUME_FILE
    state = torch.load(path, weights_only=True) | change
    torch.save(state | {"sealed": False}, path)
    step, (sentence,) = loaded(tmp_path)
    assert step == 1 and f"{path} is damaged: " in sentence


def test_statistics_that_are_no_numbers_are_not_gone_on_from(tmp_path):
    saves(tmp_path, 1)
    module, optimizer = training(2)
    module.queue[1] = torch.inf
    save_resume(tmp_path, module, optimizer, epoch=0, step_in_epoch=2, log_rows=2)
    step, (sentence,) = loaded(tmp_path)
    assert step == 1 and "queue of process 0 has values that are no numbers" in sentence


def test_killed_between_two_renames(tmp_path):
    saves(tmp_path, 1, 2)
    (tmp_path / RESUME_FILE).unlink()
    step, (sentence,) = loaded(tmp_path)
    assert step == 1 and f"{tmp_path / RESUME_FILE} is missing" in sentence


def test_what_is_damaged_does_not_take_the_place_of_what_is_good(tmp_path):
    saves(tmp_path, 1, 2)
    (tmp_path / RESUME_FILE).write_bytes(b"PK\x03\x04cut short")
    module, optimizer = training(-1)
    said: list[str] = []
    kept = Saves(tmp_path, module, optimizer, 10, 60.0, said.append)
    assert kept.load() == (1, 1) and len(said) == 1
    kept.save(5, 5)
    (tmp_path / RESUME_FILE).write_bytes(b"")
    assert loaded(tmp_path)[0] == 1
