"""Two gloo processes: ranks stay in sync, equal one process, and resume exactly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from methods import METHODS

HERE = Path(__file__).parent


def launch(processes: int, method: str, folder: Path, stop_at: int = -1) -> list[dict]:
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), str(HERE / "ddp_worker.py"),
        method, str(folder), str(stop_at),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True)
        for r in range(processes)
        if (folder / f"rank{r}.pt").exists()
    ]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_stay_in_sync_and_resume_exactly(method, tmp_path):
    first, second = launch(2, method, tmp_path / "whole")
    for name, value in first["parameters"].items():
        assert value.equal(second["parameters"][name]), name
    own = [n for n, b in first["buffers"].items() if not b.equal(second["buffers"][n])]
    assert not any(n.startswith("queue.") for n in own), "queues of keys are common to all ranks"
    assert any("running_mean" in n for n in own), "BatchNorm is each rank's own"

    assert launch(2, method, tmp_path / "parts", stop_at=5) == []
    assert (tmp_path / "parts" / "interrupted.0").exists()
    assert (tmp_path / "parts" / "interrupted.1").exists()
    for rank, resumed in enumerate(launch(2, method, tmp_path / "parts")):
        whole = (first, second)[rank]
        for group in ("parameters", "buffers"):
            for name, value in whole[group].items():
                assert value.equal(resumed[group][name]), (rank, name)


@pytest.mark.parametrize(
    "method", ["infonce", "ubernce", "coclr", "cmc", "vicc", "vicc-cross", "cpc"]
)
def test_without_batchnorm_two_processes_equal_one_with_the_global_batch(method, tmp_path):
    """ViCC without remembered features, which are each rank's own by design.

    Also where other ranks' clips are negatives that gradients flow to, as in CPC.
    """
    (one,) = launch(1, f"linear-{method}", tmp_path / "one")
    two, _ = launch(2, f"linear-{method}", tmp_path / "two")
    torch.testing.assert_close(one["parameters"], two["parameters"], atol=5e-6, rtol=1e-4)
    torch.testing.assert_close(one["buffers"], two["buffers"], atol=5e-6, rtol=1e-4)


def test_another_number_of_processes_is_refused(tmp_path):
    launch(2, "linear-infonce", tmp_path / "run", stop_at=5)
    with pytest.raises(AssertionError, match="was written by 2 processes"):
        launch(1, "linear-infonce", tmp_path / "run")
