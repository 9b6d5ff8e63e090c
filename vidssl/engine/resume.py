"""resume.pt: the whole state of a training, so that it can continue as if nothing had happened.

Parameters and optimiser state are the same on every rank and are stored once. Buffers (queues,
BatchNorm statistics) and random states differ between ranks and are stored for each.

Two generations are kept: resume.pt, and what was saved before it in resume.previous.pt. Where the
newest is damaged, the one before it is taken (:mod:`vidssl.engine.sealed_file`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidssl.base import distributed
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.finite_values import first_not_finite
from vidssl.base.stored_json import DamagedFile, bounded, record
from vidssl.base.text import counted
from vidssl.engine.sealed_file import read_sealed, seal
from vidssl.version import VERSION

RESUME_FORMAT = 1
RESUME_FILE = "resume.pt"
PREVIOUS_FILE = "resume.previous.pt"
DIVERGED_FILE = "diverged.pt"  # of :mod:`vidssl.engine.divergence`


@dataclass(frozen=True)
class _Rank:
    """What one rank has of its own."""

    buffers: dict[str, Any]
    torch_rng: Any
    cuda_rng: Any


@dataclass(frozen=True)
class _State:
    """The content of resume.pt.

    Attributes:
        sealed: the file ends with its checksum; those of version 0.1 do not.
    """

    format: int
    world_size: int = field(metadata=bounded(at_least=1))
    epoch: int = field(metadata=bounded(at_least=0))
    step_in_epoch: int = field(metadata=bounded(at_least=0))
    log_rows: int = field(metadata=bounded(at_least=0))
    parameters: dict[str, Any]
    optimizer: dict[str, Any]
    ranks: list[_Rank]
    sealed: bool = False


class Saves:
    """Reads resume.pt when training begins, and writes it again from time to time.

    Args:
        every: seconds between two writes.
        say: is told in one sentence if resume.pt is damaged and the one before it is taken.
    """

    def __init__(
        self,
        folder: Path,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps_per_epoch: int,
        every: float,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._folder, self._method, self._optimizer = folder, method, optimizer
        self._steps_per_epoch, self._every, self._say = steps_per_epoch, every, say
        self._keep_newest = True  # as the previous one, when the next is written
        self._saved_at = time.monotonic()

    def load(self) -> tuple[int, int]:
        """Restores what was saved; returns the next step and how many rows of the log stay.

        Both are 0 without a resume.pt.

        Raises:
            VidsslError: as :func:`load_resume`, or the ranks have read different states.
        """
        told: list[str] = []
        saved = load_resume(self._folder, self._method, self._optimizer, told.append)
        for sentence in told:
            self._say(sentence)
        self._keep_newest = not told  # else it is damaged
        step = 0
        if saved is not None:
            step = saved["epoch"] * self._steps_per_epoch + saved["step_in_epoch"]
        if len(set(distributed.all_ranks(step))) > 1:
            raise VidsslError(
                f"the processes of this run do not read the same {self._folder / RESUME_FILE}: "
                "all must see one file system"
            )
        return step, 0 if saved is None else saved["log_rows"]

    @property
    def due(self) -> bool:
        """Whether the last write is long enough ago."""
        return time.monotonic() - self._saved_at >= self._every

    def save(self, step: int, log_rows: int) -> None:
        """Writes resume.pt. Every rank must call it.

        Args:
            step: the next one to be done.
        """
        epoch, step_in_epoch = divmod(step, self._steps_per_epoch)
        save_resume(
            self._folder,
            self._method,
            self._optimizer,
            epoch=epoch,
            step_in_epoch=step_in_epoch,
            log_rows=log_rows,
            keep_newest=self._keep_newest,
        )
        self._keep_newest = True
        self._saved_at = time.monotonic()


def save_resume(
    folder: Path,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    step_in_epoch: int,
    log_rows: int,
    keep_newest: bool = True,
) -> None:
    """Writes resume.pt. Every rank must call it; rank 0 writes.

    Args:
        epoch, step_in_epoch: the next step to be done.
        log_rows: how many rows of the log belong to the steps done.
        keep_newest: what is resume.pt so far becomes resume.previous.pt.
    """
    ranks = distributed.all_ranks(
        {
            "buffers": {name: b.detach().cpu() for name, b in method.named_buffers()},
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if _on_cuda(method) else None,
        }
    )
    if distributed.rank() != 0:
        return
    state = {
        "format": RESUME_FORMAT,
        "world_size": distributed.world_size(),
        "epoch": epoch,
        "step_in_epoch": step_in_epoch,
        "log_rows": log_rows,
        "parameters": {name: p.detach().cpu() for name, p in method.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "ranks": ranks,
        "sealed": True,
    }
    path = folder / RESUME_FILE
    data = seal(state)
    if keep_newest and path.exists():
        os.replace(path, folder / PREVIOUS_FILE)
    atomic_write(path, data)


def drop_earlier_states(folder: Path) -> None:
    """Deletes what a training that has ended well needs no more: all states but the last one."""
    for name in (PREVIOUS_FILE, DIVERGED_FILE):
        (folder / name).unlink(missing_ok=True)


def load_resume(
    folder: Path,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, int] | None:
    """Restores what :func:`save_resume` saved; returns epoch, step_in_epoch and log_rows, or None.

    If resume.pt is damaged or missing, what was saved before it is restored, and `say` is told.

    Raises:
        VidsslError: made by another number of processes, of an unknown format, or damaged with
            nothing before it.
    """
    path, previous = folder / RESUME_FILE, folder / PREVIOUS_FILE
    if not path.exists() and not previous.exists():
        return None
    try:
        return _restore(path, method, optimizer)
    except FileNotFoundError:  # killed between two renames, or deleted
        problem = f"{path} is missing"
    except DamagedFile as error:
        problem = str(error)
    if not previous.exists():
        raise DamagedFile(
            f"{path} is damaged: remove that file, and the same command trains from the beginning "
            f"({problem.removeprefix(f'{path} is damaged: ')})"
        )
    try:
        found = _restore(previous, method, optimizer)
    except DamagedFile as error:
        raise DamagedFile(
            f"{problem}, and {error}: remove both files, and the same command trains from the "
            "beginning"
        ) from error
    say(f"{problem}: training goes on from {previous.name}, which was saved before it")
    return found


def _restore(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Restores the state in one file.

    Raises:
        DamagedFile: it has other bytes than were written, or does not fit this training.
        VidsslError: made by another number of processes, or of an unknown format.
        FileNotFoundError: there is no such file.
    """
    state = _read(path)
    mine = state.ranks[distributed.rank()]
    try:
        method.load_state_dict(state.parameters | mine.buffers, strict=True)
        optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(mine.torch_rng)
        if mine.cuda_rng is not None and _on_cuda(method):
            torch.cuda.set_rng_state(mine.cuda_rng)
    except Exception as error:  # torch raises nearly anything for a state that does not fit
        raise DamagedFile(f"{path} is damaged: it does not fit this training") from error
    return {name: getattr(state, name) for name in ("epoch", "step_in_epoch", "log_rows")}


def _read(path: Path) -> _State:
    found, sealed = read_sealed(path)
    if not isinstance(found, Mapping) or found.get("format") != RESUME_FORMAT:
        version = found.get("format") if isinstance(found, Mapping) else None
        raise VidsslError(
            f"{path} has resume format {version}, and this vidssl ({VERSION}) reads format "
            f"{RESUME_FORMAT}"
        )
    state = record(_State, found, path, ignore=True)
    if state.sealed and not sealed:
        raise DamagedFile(f"{path} is damaged: the checksum at its end is missing")
    if len(state.ranks) != state.world_size:
        raise DamagedFile(f"{path} is damaged: it lacks the state of a process")
    if state.world_size != distributed.world_size():
        raise VidsslError(
            f"{path} was written by {counted(state.world_size, 'process')}, this run has "
            f"{distributed.world_size()}: each has queues and BatchNorm statistics of its own, "
            "so resume with as many"
        )
    if (name := first_not_finite(_tensors(state))) is not None:
        raise DamagedFile(f"{path} is damaged: {name} has values that are no numbers")
    return state


def _tensors(state: _State) -> dict[str, Any]:
    """Returns all tensors of a state by a name for people."""
    of_ranks = {
        f"{name} of process {number}": buffer
        for number, rank in enumerate(state.ranks)
        for name, buffer in rank.buffers.items()
    }
    of_optimizer = {
        f"the optimiser's {name} of tensor {number}": value
        for number, each in dict(state.optimizer.get("state") or {}).items()
        for name, value in dict(each).items()
    }
    return state.parameters | of_ranks | of_optimizer


def _on_cuda(module: nn.Module) -> bool:
    return next(module.parameters()).is_cuda
