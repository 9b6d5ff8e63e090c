"""Training stages can be killed at any moment and run again, to the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_workspace import SMALL, vidssl

from vidssl.workspace.artifacts import Workspace

EPOCHS = ["--epochs", "40"]


def start(command: list[str], workspace: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "vidssl", *command, "-w", str(workspace)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen, workspace: Path, name: str, rows: int) -> None:
    """Waits until a run has written so many rows of its log."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        logs = list((workspace / "checkpoint" / name).glob(".run-*/log.jsonl"))
        if logs and logs[0].read_text().count("\n") >= rows:
            return
        time.sleep(0.02)
    raise AssertionError("training wrote no log in two minutes")


def command_of(stage: str, name: str) -> list[str]:
    own = ["--student", "rgb-infonce", "--k", "2"] if stage == "cotrain" else []
    return [stage, "--name", name, *own, *SMALL, *EPOCHS, "--save-every", "0"]


@pytest.mark.parametrize("stage", ["pretrain", "cotrain"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_training_goes_on_to_the_same_weights(copied, stage, number):
    workspace = copied["workspace"]
    whole = start(command_of(stage, "whole"), workspace)
    assert whole.wait(300) == 0, whole.communicate()[1]

    killed = start(command_of(stage, "killed"), workspace)
    wait_for_steps(killed, workspace, "killed", rows=5)
    killed.send_signal(number)
    _, said = killed.communicate(timeout=60)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert killed.returncode == expected[number], said
    assert "Traceback" not in said
    found = Workspace(workspace)
    assert found.artifacts("checkpoint", "killed") == []

    resume = [] if number == signal.SIGKILL else ["--resume"]
    again = start([*command_of(stage, "killed"), *resume], workspace)
    assert again.wait(300) == 0, again.communicate()[1]
    digests = {name: found.resolve("checkpoint", name).digest for name in ("whole", "killed")}
    assert digests["whole"] == digests["killed"]


def test_killed_finetuning_goes_on_to_the_same_figures(copied):
    workspace = copied["workspace"]
    small = [*SMALL[:-2], *EPOCHS, "--save-every", "0", "-c", "rgb-infonce"]  # it has no queue
    commands = {name: ["finetune", "--name", name, *small] for name in ("whole", "killed")}
    whole = start(commands["whole"], workspace)
    assert whole.wait(300) == 0, whole.communicate()[1]

    killed = start(commands["killed"], workspace)
    wait_for_steps(killed, workspace, "killed-finetuned", rows=5)
    killed.kill()
    killed.communicate(timeout=60)
    found = Workspace(workspace)
    assert found.artifacts("checkpoint", "killed-finetuned") == []

    again = start([*commands["killed"], "--resume"], workspace)
    assert again.wait(300) == 0, again.communicate()[1]
    one, other = (found.resolve("checkpoint", f"{name}-finetuned") for name in commands)
    assert one.digest == other.digest
    one, other = (found.resolve("finetune", name).payload for name in commands)
    assert one["probabilities.safetensors"] == other["probabilities.safetensors"]


def test_two_processes_cannot_work_on_one_run(copied):
    workspace = copied["workspace"]
    command = [*command_of("pretrain", "same"), "--epochs", "100000"]
    first = start(command, workspace)
    wait_for_steps(first, workspace, "same", rows=1)
    second = start(command, workspace)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1 and "another process" in said
    assert vidssl("status", "--json", workspace=workspace).json["unfinished"][0]["running"]
    said = vidssl(*command, "--resume", "--seed", 1, workspace=workspace, code=1).err
    assert "seed 0 → 1" in said
    first.terminate()
    assert first.wait(60) == 143
    assert "stopped; the same command goes on" in vidssl("status", workspace=workspace).out
