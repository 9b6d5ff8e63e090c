"""Training stages can be killed at any moment and run again, to the same weights."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cli_workspace import SMALL, vidssl
from forked import Forked, call_vidssl, run_vidssl
from patience import PATIENCE

from vidssl.engine.log import TrainingLog
from vidssl.workspace.workspace import Workspace

EPOCHS = ["--epochs", "6"]  # each ends with a row of the log


def start(command: list[str], workspace: Path) -> Forked:
    return run_vidssl(*command, "-w", workspace)


def killed_at(row: int, number: int, command: list[str], workspace: Path) -> Forked:
    """Starts training that gets a signal when it has written so many rows of its log."""
    return Forked(training_with_signal, row, number, [*command, "-w", str(workspace)])


def training_with_signal(row: int, number: int, arguments: list[str]) -> None:
    """Runs `vidssl ARGUMENTS`, in a process of its own."""
    append = TrainingLog.append

    def append_and_signal(log: TrainingLog, figures: dict) -> None:
        append(log, figures)
        if log.count == row:
            os.kill(os.getpid(), number)

    TrainingLog.append = append_and_signal
    call_vidssl(arguments)


def wait_for_steps(process: Forked, workspace: Path, name: str, rows: int) -> None:
    """Waits until a run has written so many rows of its log."""
    deadline = time.monotonic() + PATIENCE
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


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory) -> Callable[[str], str]:
    """Returns the digest of what a stage makes where nobody disturbs it."""

    @cache
    def digest_of(stage: str) -> str:
        workspace = tmp_path_factory.mktemp(stage) / "workspace"
        shutil.copytree(finished["workspace"], workspace)
        vidssl(*command_of(stage, "whole"), workspace=workspace)
        return Workspace(workspace).resolve("checkpoint", "whole").digest

    return digest_of


@pytest.mark.parametrize("stage", ["pretrain", "cotrain"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_training_goes_on_to_the_same_weights(copied, whole, stage, number):
    workspace = copied["workspace"]
    killed = killed_at(3, number, command_of(stage, "killed"), workspace)
    _, said = killed.communicate(timeout=PATIENCE)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert killed.returncode == expected[number], said
    assert "Traceback" not in said
    found = Workspace(workspace)
    assert found.artifacts("checkpoint", "killed") == []

    resume = [] if number == signal.SIGKILL else ["--resume"]
    vidssl(*command_of(stage, "killed"), *resume, workspace=workspace)
    assert found.resolve("checkpoint", "killed").digest == whole(stage)


def test_killed_finetuning_goes_on_to_the_same_figures(copied):
    workspace = copied["workspace"]
    small = [*SMALL[:-2], *EPOCHS, "--save-every", "0", "-c", "rgb-infonce"]  # it has no queue
    commands = {name: ["finetune", "--name", name, *small] for name in ("whole", "killed")}
    vidssl(*commands["whole"], workspace=workspace)

    killed = killed_at(3, signal.SIGKILL, commands["killed"], workspace)
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    found = Workspace(workspace)
    assert found.artifacts("checkpoint", "killed-finetuned") == []

    vidssl(*commands["killed"], "--resume", workspace=workspace)
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
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1 and "another process" in said
    assert vidssl("status", "--json", workspace=workspace).json["unfinished"][0]["running"]
    said = vidssl(*command, "--resume", "--seed", 1, workspace=workspace, code=1).err
    assert "seed 0 → 1" in said
    first.terminate()
    assert first.wait(PATIENCE) == 143
    assert "stopped; the same command goes on" in vidssl("status", workspace=workspace).out
