"""A scheduler warns a training, ends it, and starts it again: nothing is lost, nothing differs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from methods import BUILDERS, batch
from stubs import FixedBatches
from watching import Watching

from vidssl.base.errors import Interrupted
from vidssl.base.signals import leave_at_once, signals_blocked_in_children, work_begins
from vidssl.engine import resume
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method

STEPS, EPOCHS = 3, 3
SPEC = TrainSpec(epochs=EPOCHS, batch_size=4, lr=1e-2, schedule="constant", warmup_epochs=0)
WARNING, END = signal.SIGUSR1, signal.SIGTERM


class Scheduler:
    """Stands in for Slurm: runs a job again and again, until it ends by itself.

    Each time it warns the job during some step, as `--signal=USR1@60` does, and goes on as Slurm
    does: it ends the job while that is saving, if it is told to.

    Attributes:
        codes: with which the job ended, each time.
        steps: that were begun after the warning, in all.
    """

    def __init__(self, warn_at: list[int], end: bool) -> None:
        self.warn_at, self.end = warn_at, end
        self.codes: list[int] = []
        self.warned, self.steps = False, 0

    def run(self, job: Callable[[], None]) -> None:
        while True:
            self.warned = False
            try:
                job()
            except Interrupted as stopped:
                self.codes.append(stopped.exit_code)
            else:
                return

    def at_step(self, step: int) -> None:
        """Is called when the batch of a step is fetched."""
        self.steps += self.warned
        if self.warn_at and step == self.warn_at[0]:
            self.warn_at.pop(0)
            self.warned = True
            os.kill(os.getpid(), WARNING)

    def at_saving(self) -> None:
        """Is called in the middle of saving."""
        if self.end and self.warned:
            os.kill(os.getpid(), END)


class Batches(FixedBatches):
    """Batches of a method, whose steps a scheduler watches."""

    def __init__(self, method: Method, scheduler: Scheduler) -> None:
        super().__init__(STEPS, lambda step: batch(step, method))
        self.scheduler = scheduler

    def steps(self, begin: int, end: int):
        for step, made in enumerate(super().steps(begin, end), begin):
            self.scheduler.at_step(step)
            yield made


def train(folder: Path, scheduler: Scheduler, watching: Watching) -> dict[str, torch.Tensor]:
    folder.mkdir()
    methods: list[Method] = []

    def job() -> None:
        methods.append(BUILDERS["infonce"]())
        runtime = RuntimeConfig(torch.device("cpu"), save_every=1e9)
        batches = Batches(methods[-1], scheduler)
        fit(methods[-1], batches, SPEC, runtime, folder, seed=1, progress=watching)

    scheduler.run(job)
    return methods[-1].state_dict()


@pytest.mark.parametrize("end", [False, True])
def test_a_warned_job_saves_and_the_requeued_one_goes_on(tmp_path, monkeypatch, end):
    whole = train(tmp_path / "whole", Scheduler([], end), Watching())
    scheduler, watching = Scheduler([1, 2, 7], end), Watching()
    write = resume.atomic_write

    def saving(path: Path, data: bytes) -> None:
        scheduler.at_saving()
        write(path, data)

    monkeypatch.setattr(resume, "atomic_write", saving)
    requeued = train(tmp_path / "requeued", scheduler, watching)
    assert scheduler.codes == [128 + (END if end else WARNING)] * 3
    assert scheduler.steps == 0  # it is out before another step begins
    told = [said.rpartition(": ")[2] for said in watching.said if "going on" in said]
    assert told == [f"going on from epoch {epoch} of {EPOCHS}" for epoch in (1, 2, 3)]
    for name, value in whole.items():
        assert torch.equal(value, requeued[name]), name


@pytest.fixture
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_warning_ends_other_work_with_its_own_code(handlers):
    leave_at_once()
    work_begins()
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        os.kill(os.getpid(), WARNING)
    assert caught.value.exit_code == 128 + WARNING


def test_processes_of_a_command_leave_the_warning_to_their_parent():
    with signals_blocked_in_children():
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {WARNING, END, signal.SIGINT}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {WARNING, END, signal.SIGINT}
