"""What a training run would take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Forecast:
    """What a training run would take.

    Attributes:
        parameters: numbers in all networks, momentum encoders and partners among them.
        trained: those that the optimiser moves.
        processes: that share a batch.
        batch_per_process: samples of one optimiser step in one process.
        micro_batch: of them, those that are computed at once.
        memory: bytes per process. On CUDA the most that was allocated, None where it was too
            little; on a CPU an estimate: networks, optimiser, batches, and what autograd keeps.
        memory_there: bytes that the device has, or that the machine has free; None: not known.
        measured: whether `memory` was measured.
        tried: timed steps.
        samples_per_second, data_wait: of them, over all processes; None without any.
        seconds_per_epoch: that follow; None without any.
        bytes_per_epoch: to be read from shards.
        note: what the user should know, or nothing.
    """

    parameters: int
    trained: int
    processes: int
    batch_per_process: int
    micro_batch: int
    memory: int | None
    memory_there: int | None
    measured: bool
    steps_per_epoch: int
    epochs: int
    tried: int
    samples_per_second: float | None
    data_wait: float | None
    seconds_per_epoch: float | None
    bytes_per_epoch: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)
