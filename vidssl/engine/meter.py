"""Figures of training between two rows of the log, and how fast it goes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from vidssl.base.errors import VidsslError
from vidssl.engine.log import Row
from vidssl.methods import StepOutput
from vidssl.methods.modules.metrics import health_of_views


class Meter:
    """Sums figures between two rows of the log, and times the loop.

    The sums stay on the device until :meth:`fetch`, so that no step waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # [2, names]: sums and counts
        self._features: Tensor | Mapping[str, Tensor] | None = None
        self._diverged = torch.zeros((), dtype=torch.bool, device=self.device)
        self._waits: list[tuple[TimeStamp, TimeStamp]] = []
        self._samples, self._begin = 0, time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times how long the device only waits for data."""
        begin = time_stamp(self.device)
        yield
        self._waits.append((begin, time_stamp(self.device)))

    def add(self, outputs: Sequence[StepOutput], samples: int) -> None:
        """Adds the figures of one optimiser step.

        Args:
            outputs: of its micro-batches.
            samples: in all of them, over all ranks.
        """
        self._samples += samples
        for output in outputs:
            nothing = torch.full((), math.nan, device=self.device)
            values = {"loss": nothing if output.loss is None else output.loss} | output.metrics
            names, figures = tuple(values), torch.stack([v.float() for v in values.values()])
            known = torch.isfinite(figures)
            seen = torch.stack([torch.where(known, figures, 0.0), known.float()])
            self._sums[names] = self._sums.get(names, 0) + seen
            if output.loss is not None:
                self._diverged = self._diverged | ~known[0]
            self._features = output.features

    def fetch(self) -> Row:
        """Returns the means since the last call, health of features, and speed.

        Raises:
            VidsslError: a loss was not a finite number.
        """
        if bool(self._diverged):
            raise VidsslError(
                "training has diverged: the loss is no finite number any more; a lower rate "
                "(--set lr=…) or a warm-up (--set warmup_epochs=…) usually helps"
            )
        row = self._means()
        seconds = max(time.monotonic() - self._begin, 1e-9)
        if self._features is not None:
            row |= health_of_views(self._features)
        row["samples_per_second"] = self._samples / seconds
        row["data_wait"] = sum(seconds_between(*wait) for wait in self._waits) / seconds
        self._reset()
        return row

    def _means(self) -> Row:
        totals: dict[str, float] = {}
        counts: dict[str, float] = {}
        for names, sums in self._sums.items():
            for name, total, count in zip(names, *sums.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + total
                counts[name] = counts.get(name, 0.0) + count
        return {n: totals[n] / counts[n] if counts[n] else math.nan for n in totals}


TimeStamp: TypeAlias = float | torch.cuda.Event


def time_stamp(device: torch.device) -> TimeStamp:
    """Returns the time; on CUDA the time at which the device will reach this place in its queue.

    The host queues work far ahead: while it waits, the device may have enough to do.
    """
    if device.type != "cuda":
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(begin: TimeStamp, end: TimeStamp) -> float:
    """Returns the seconds from `begin` to `end`; on CUDA the device must have reached both."""
    if isinstance(begin, float) and isinstance(end, float):
        return end - begin
    assert isinstance(begin, torch.cuda.Event)
    return begin.elapsed_time(end) / 1000
