"""The one training loop, for every method."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vidssl.backbones import Encoder
from vidssl.backbones.activation_checkpointing import recompute_activations
from vidssl.base import distributed
from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.progress import SILENT, Progress, Task
from vidssl.base.signals import stop_requests
from vidssl.clips.batch import ClipBatch
from vidssl.engine.collapse import sentence, signs_of_collapse
from vidssl.engine.log import Row, TrainingLog
from vidssl.engine.optimizers import (
    TrainSpec,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from vidssl.engine.resume import load_resume, save_resume
from vidssl.methods import Method, StepOutput, StepState
from vidssl.methods.modules.metrics import health_of_views

ASK_RANKS_EVERY = 10  # steps between two times that ranks agree on saving and stopping


class Batches(Protocol):
    """What the engine needs of a loader."""

    steps_per_epoch: int

    def steps(self, begin: int, end: int) -> Iterator[Sequence[ClipBatch]]:
        """Returns this rank's micro-batches for the optimiser steps `begin` to `end`, on the
        device.

        Steps are counted from the first one of training.
        """


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the steps are computed; no part of a run's identity.

    Attributes:
        half_precision: bf16 autocast in backbones.
        compile: torch.compile on backbones.
        recompute: backbones keep few activations and compute the others twice.
        log_every: optimiser steps between two rows of the log (epochs end with one, too).
        save_every: seconds between two writes of resume.pt.
    """

    device: torch.device
    half_precision: bool = False
    compile: bool = False
    recompute: bool = False
    log_every: int = 20
    save_every: float = 60.0


def fit(
    method: Method,
    batches: Batches,
    spec: TrainSpec,
    runtime: RuntimeConfig,
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
    description: str = "training",
    epoch_done: Callable[[int], None] = lambda epoch: None,
) -> Row:
    """Trains until `spec.epochs`, from resume.pt if the folder has one.

    Args:
        folder: gets resume.pt, log.jsonl and log.csv.
        epoch_done: called on rank 0 after every epoch, with their number so far.

    Returns:
        The last row of the log.

    Raises:
        Interrupted: a signal came; everything was saved first.
    """
    optimizer = prepare(method, spec, runtime)
    resumed = load_resume(folder, method, optimizer) or {}
    per_epoch = batches.steps_per_epoch
    begin = resumed.get("epoch", 0) * per_epoch + resumed.get("step_in_epoch", 0)
    end = spec.epochs * per_epoch
    if 0 < begin < end:
        epoch = begin // per_epoch + 1
        progress.say(f"{description}: going on from epoch {epoch} of {spec.epochs}")
    model = over_ranks(method)
    meter, watch = Meter(runtime.device), _CollapseWatch()
    saved_at = time.monotonic()
    with (
        stop_requests() as stop,
        _log_of_rank_zero(folder, resumed.get("log_rows", 0)) as log,
        progress.task(description, end, "step", begin) as task,
        contextlib.closing(_steps(batches, seed, begin, end, meter)) as steps,
        fastest_kernels(),
    ):
        for step_state, micro_batches in steps:
            rate = learning_rate(spec, step_state.step / per_epoch)
            set_learning_rate(optimizer, rate)
            outputs = train_step(method, model, optimizer, micro_batches, step_state)
            meter.add(outputs, samples=spec.batch_size)
            task.advance()

            done = step_state.step + 1
            epoch_ends = done % per_epoch == 0
            # once in a while: fetch the figures (waits for the device) and write them down
            if epoch_ends or done % runtime.log_every == 0:
                row: Row = {"epoch": step_state.epoch + 1, "step": done, "lr": rate} | meter.fetch()
                log.append(row)
                _show(task, row)
                watch.look(task, row, collapse(row, spec, method))
            # once in a while: an epoch ends. Before saving, so that a kill cannot skip it.
            if epoch_ends and distributed.rank() == 0:
                epoch_done(step_state.epoch + 1)
            # once in a while: save. Ranks must agree, so they ask at the same steps.
            if distributed.world_size() == 1 or epoch_ends or done % ASK_RANKS_EVERY == 0:
                stopping = distributed.any_rank(bool(stop))
                due = distributed.any_rank(time.monotonic() - saved_at >= runtime.save_every)
                if stopping or due or done == end:
                    epoch, step = divmod(done, per_epoch)
                    position = {"epoch": epoch, "step_in_epoch": step, "log_rows": log.count}
                    save_resume(folder, method, optimizer, **position)
                    saved_at = time.monotonic()
                if stopping and done < end:
                    raise Interrupted(
                        f"interrupted in epoch {step_state.epoch + 1} of {spec.epochs}; "
                        "all is saved, the same command goes on from here",
                        stop.signal_number or 15,
                    )
        return log.last


@contextlib.contextmanager
def fastest_kernels() -> Iterator[None]:
    """Within it cuDNN tries its kernels at the first clips, which are all of one shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def prepare(method: Method, spec: TrainSpec, runtime: RuntimeConfig) -> torch.optim.Optimizer:
    """Takes a method to where it is trained, in train mode; gives its optimiser."""
    method.to(runtime.device).train()
    if runtime.device.type == "cuda":
        method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    _prepare_backbones(method, runtime)
    return make_optimizer(spec, method.parameter_groups())


def _steps(
    batches: Batches, seed: int, begin: int, end: int, meter: Meter
) -> Generator[tuple[StepState, Sequence[ClipBatch]], None, None]:
    """Returns the clock and the micro-batches of every optimiser step from `begin` to `end`."""
    per_epoch = batches.steps_per_epoch
    ready = batches.steps(begin, end)
    for step in range(begin, end):
        with meter.waiting():
            micro_batches = next(ready)
        yield StepState(seed, step // per_epoch, step, per_epoch), micro_batches


def train_step(
    method: Method,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[ClipBatch],
    step_state: StepState,
) -> list[StepOutput]:
    """Does one optimiser step by the contract of :mod:`vidssl.methods.method`.

    Args:
        model: the objective itself, or the objective under DDP.
    """
    method.before_forward(step_state)
    outputs = []
    for i, batch in enumerate(micro_batches):
        last = i + 1 == len(micro_batches)
        with contextlib.nullcontext() if last else _without_sync(model):
            output: StepOutput = model(batch, step_state)
            if output.loss is not None:
                (output.loss / len(micro_batches)).backward()
        outputs.append(output.detached())
    if any(output.loss is not None for output in outputs):
        method.after_backward(step_state)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    method.after_step(step_state, outputs)
    return outputs


def _without_sync(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def over_ranks(method: Method) -> nn.Module:
    """Returns what a step calls: the objective itself, under DDP where there are several ranks."""
    if distributed.world_size() == 1:
        return method
    # Queues and BatchNorm statistics are each rank's own, hence no broadcast of buffers. Gradients
    # lie in the buckets that are sent, not beside them. No static graph: it gains nothing here
    # (docs/benchmarks.md), and a step without a loss breaks it.
    with warnings.catch_warnings():
        # What torch 2.15 names instead would still send buffers once, at the beginning.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            method, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _prepare_backbones(method: Method, runtime: RuntimeConfig) -> None:
    for module in method.modules():
        if isinstance(module, Encoder):
            module.half_precision = runtime.half_precision
            if runtime.recompute:
                recompute_activations(module.backbone)
            if runtime.compile:
                module.backbone.compile(dynamic=False)  # clips are all of one shape


# ── figures ──────────────────────────────────────────────────────────────────────────────────


class Meter:
    """Sums figures on the device between two rows of the log, and times the loop."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # [2, names]: sums, and of how many
        self._features: Tensor | Mapping[str, Tensor] | None = None
        self._diverged = torch.zeros((), dtype=torch.bool, device=self.device)
        self._waits: list[tuple[Moment, Moment]] = []
        self._samples, self._begin = 0, time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times how long the device has nothing to do but wait for data."""
        begin = now(self.device)
        yield
        self._waits.append((begin, now(self.device)))

    def add(self, outputs: Sequence[StepOutput], samples: int) -> None:
        """Takes up one optimiser step."""
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


Moment = float | torch.cuda.Event


def now(device: torch.device) -> Moment:
    """Returns the time, on CUDA as the device will know it when it comes to this place.

    The host queues work far ahead: where it waits, the device may have enough to do.
    """
    if device.type != "cuda":
        return time.monotonic()
    moment = torch.cuda.Event(enable_timing=True)
    moment.record(torch.cuda.current_stream(device))
    return moment


def seconds_between(begin: Moment, end: Moment) -> float:
    """Returns how much later `end` was; on CUDA the device must have come to it."""
    if isinstance(begin, float) and isinstance(end, float):
        return end - begin
    assert isinstance(begin, torch.cuda.Event)
    return begin.elapsed_time(end) / 1000


def _show(task: Task, row: Row) -> None:
    shown = {
        name: row[name]
        for name in ("loss", "top1", "knn", "purity", "prototype_entropy")
        if isinstance(row.get(name), float) and math.isfinite(row[name])  # type: ignore[arg-type]
    }
    task.advance(0, epoch=f"{row['epoch']}", **shown)  # type: ignore[arg-type]


def collapse(row: Row, spec: TrainSpec, method: Method) -> str:
    """Returns a sentence where a row of the log shows that training has collapsed, else nothing."""
    clips = spec.batch_size // (spec.accumulate * distributed.world_size())
    return sentence(signs_of_collapse(row, clips, method.supervised))


class _CollapseWatch:
    """Says once that training has collapsed: when two rows of the log in succession show it."""

    def __init__(self) -> None:
        self._before = self._told = False

    def look(self, task: Task, row: Row, said: str) -> None:
        if said and self._before and not self._told:
            task.note(f"epoch {row['epoch']}: {said}")
            self._told = True
        self._before = bool(said)


class _Log:
    """The log on rank 0, and its silent twin on the other ranks."""

    def __init__(self, log: TrainingLog | None) -> None:
        self._log = log
        self.count = 0 if log is None else log.count
        self.last: Row = {} if log is None else log.last

    def append(self, row: Row) -> None:
        self.last = row
        self.count += 1
        if self._log is not None:
            self._log.append(row)


@contextlib.contextmanager
def _log_of_rank_zero(folder: Path, keep: int) -> Iterator[_Log]:
    if distributed.rank() == 0:
        with TrainingLog(folder, keep) as log:
            yield _Log(log)
    else:
        yield _Log(None)
