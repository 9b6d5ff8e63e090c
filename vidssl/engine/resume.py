"""resume.pt: the whole state of a training, so that it can continue as if nothing had happened.

Parameters and optimiser state are the same on every rank and are stored once. Buffers (queues,
BatchNorm statistics) and random states differ between ranks and are stored for each.
"""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidssl.base import distributed
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.text import counted
from vidssl.version import VERSION

RESUME_FORMAT = 1
RESUME_FILE = "resume.pt"


class Saves:
    """Reads resume.pt when training begins, and writes it again from time to time.

    Args:
        every: seconds between two writes.
    """

    def __init__(
        self,
        folder: Path,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps_per_epoch: int,
        every: float,
    ) -> None:
        self._folder, self._method, self._optimizer = folder, method, optimizer
        self._steps_per_epoch, self._every = steps_per_epoch, every
        self._saved_at = time.monotonic()

    def load(self) -> tuple[int, int]:
        """Restores what was saved; returns the next step and how many rows of the log stay.

        Both are 0 without a resume.pt.

        Raises:
            VidsslError: as :func:`load_resume`.
        """
        saved = load_resume(self._folder, self._method, self._optimizer)
        if saved is None:
            return 0, 0
        return saved["epoch"] * self._steps_per_epoch + saved["step_in_epoch"], saved["log_rows"]

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
        )
        self._saved_at = time.monotonic()


def save_resume(
    folder: Path,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    step_in_epoch: int,
    log_rows: int,
) -> None:
    """Writes resume.pt. Every rank must call it; rank 0 writes.

    Args:
        epoch, step_in_epoch: the next step to be done.
        log_rows: how many rows of the log belong to the steps done.
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
    }
    file = io.BytesIO()
    torch.save(state, file)
    atomic_write(folder / RESUME_FILE, file.getvalue())


def load_resume(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, int] | None:
    """Restores what :func:`save_resume` saved; returns epoch, step_in_epoch and log_rows, or None.

    Raises:
        VidsslError: made by another number of processes, of an unknown format, or damaged.
    """
    path = folder / RESUME_FILE
    if not path.exists():
        return None
    state = _read(path)
    if state["world_size"] != distributed.world_size():
        raise VidsslError(
            f"{path} was written by {counted(state['world_size'], 'process')}, this run has "
            f"{distributed.world_size()}: each has queues and BatchNorm statistics of its own, "
            "so resume with as many"
        )
    mine = state["ranks"][distributed.rank()]
    method.load_state_dict(state["parameters"] | mine["buffers"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(mine["torch_rng"])
    if mine["cuda_rng"] is not None and _on_cuda(method):
        torch.cuda.set_rng_state(mine["cuda_rng"])
    return {name: state[name] for name in ("epoch", "step_in_epoch", "log_rows")}


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise VidsslError(
            f"{path} is damaged: remove that file, and the same command trains from the beginning"
        ) from error
    if not isinstance(state, dict) or state.get("format") != RESUME_FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise VidsslError(
            f"{path} has resume format {found}, and this vidssl ({VERSION}) reads format "
            f"{RESUME_FORMAT}"
        )
    return state


def _on_cuda(module: nn.Module) -> bool:
    return next(module.parameters()).is_cuda
