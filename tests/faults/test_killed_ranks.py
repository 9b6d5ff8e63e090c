"""One of several ranks is killed: started again, the run ends as if nothing had happened.

The long run kills a rank in every method, with 2 and with 4 gloo processes under torchrun:

    python -m pytest -m slow -n 0 tests/faults/test_killed_ranks.py

The quick one has no torchrun: its ranks come out of one process that has imported torch already.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
from pathlib import Path

import ddp_worker
import numpy as np
import pytest
import torch
from methods import BUILDERS
from patience import PATIENCE
from two_processes import ends, torchrun

from vidssl.base.errors import VidsslError
from vidssl.engine.resume import RESUME_FILE

LAST_SAVE = 10  # steps, of 12: ranks ask each other every ten
RANKS = 4  # of the quick test: with two, sums of gradients do not depend on their order


def assert_equal(whole: Path, killed: Path, ranks: int) -> None:
    """All ranks ended with the same bytes as in the run that nobody disturbed."""
    one, other = ends(whole), ends(killed)
    assert len(one) == len(other) == ranks
    for rank in range(ranks):
        for group in ("parameters", "buffers"):
            assert one[rank][group].keys() == other[rank][group].keys()
            for name, value in one[rank][group].items():
                assert value.equal(other[rank][group][name]), (rank, name)


def assert_killed(folder: Path, kill_at: int) -> None:
    """No rank came to its end; what was saved is of the last time that ranks agreed to save."""
    assert ends(folder) == []
    assert (folder / RESUME_FILE).exists() == (kill_at >= LAST_SAVE)


def assert_refused_with_another_number(folder: Path, method: str, ranks: int) -> None:
    if (folder / RESUME_FILE).exists():
        before = (folder / RESUME_FILE).read_bytes()
        with pytest.raises(VidsslError, match=f"was written by {ranks} processes, this run has 1"):
            ddp_worker.train(method, folder, -1)
        assert (folder / RESUME_FILE).read_bytes() == before


# ── under torchrun


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_killed_rank_in_every_method(tmp_path: Path, ranks: int):
    draw = np.random.default_rng(ranks)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for number, method in enumerate(BUILDERS):
        victim = int(draw.integers(ranks))
        kill_at = LAST_SAVE + 1 if number % 3 else int(draw.integers(1, LAST_SAVE))
        done = torchrun(ranks, method, killed, -1, victim, kill_at)
        assert done.returncode != 0
        assert_killed(killed / method, kill_at)
        assert_refused_with_another_number(killed / method, method, ranks)
    for folder in (killed, whole):
        done = torchrun(ranks, ",".join(BUILDERS), folder)
        assert done.returncode == 0, done.stderr[-3000:]
    for method in BUILDERS:
        assert_equal(whole / method, killed / method, ranks)


# ── without


def rank_main(rank: int, ranks: int, port: int, arguments: tuple) -> None:
    """What a rank does; the process ends in `leave`."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    ddp_worker.main(*arguments)


def run_ranks(ranks: int, *arguments: object) -> list[int | None]:
    """Runs ddp_worker.main in several processes; gives their exit codes.

    Where one is killed, the others are as well, as torchrun does it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ddp_worker", "torch._dynamo"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=rank_main, args=(rank, ranks, port, arguments))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        multiprocessing.connection.wait([p.sentinel for p in processes], PATIENCE)
        for process in processes:
            process.join(PATIENCE if all(p.exitcode in (None, 0) for p in processes) else 5)
    finally:
        for process in processes:
            process.kill()
            process.join(PATIENCE)
    return [process.exitcode for process in processes]


def test_a_killed_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The process that ranks come out of imports before it is told where modules are.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_ranks(RANKS, "infonce", whole) == [0] * RANKS
    codes = run_ranks(RANKS, "infonce", killed, -1, 1, LAST_SAVE + 1)
    assert codes == [1, -signal.SIGKILL, 1, 1]
    said = (killed / "infonce" / "error.0").read_text()
    assert said.startswith("another process of this training has ended; the same command")
    assert_killed(killed / "infonce", LAST_SAVE + 1)
    assert_refused_with_another_number(killed / "infonce", "infonce", RANKS)
    assert run_ranks(RANKS, "infonce", killed) == [0] * RANKS
    assert_equal(whole / "infonce", killed / "infonce", RANKS)
    saved = torch.load(killed / "infonce" / RESUME_FILE, weights_only=True)
    assert saved["world_size"] == RANKS and saved["epoch"] == 1
