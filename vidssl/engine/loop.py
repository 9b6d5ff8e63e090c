"""The training loop, one for all methods."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vidssl.backbones import Encoder
from vidssl.backbones.activation_checkpointing import recompute_activations
from vidssl.base import distributed
from vidssl.base.errors import Interrupted
from vidssl.base.progress import SILENT, Progress, Task
from vidssl.base.signals import stop_requests
from vidssl.clips.batch import ClipBatch
from vidssl.engine.collapse import CollapseWatch, collapse_sentence
from vidssl.engine.divergence import DivergenceWatch, NameVideos, numbers_as_names
from vidssl.engine.learning_rate import learning_rate, set_learning_rate
from vidssl.engine.log import RankLog, Row, log_of_rank_zero
from vidssl.engine.meter import Meter
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.resume import Saves
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method, StepOutput, StepState

ASK_RANKS_EVERY = 10  # steps; then the ranks agree on saving and stopping


class Batches(Protocol):
    """The loader, as the engine uses it."""

    steps_per_epoch: int

    def steps(self, begin: int, end: int) -> Iterator[Sequence[ClipBatch]]:
        """Yields this rank's micro-batches of the optimiser steps `begin` to `end`, on the device.

        Steps are counted from the first one of training.
        """


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the steps are computed.

    Attributes:
        half_precision: bf16 autocast in backbones.
        compile: torch.compile on backbones.
        recompute: backbones keep few activations and compute the others twice.
        log_every: optimiser steps between two rows of the log; each epoch ends with a row as well.
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
    name_videos: NameVideos = numbers_as_names,
) -> Row:
    """Trains until `spec.epochs`, from resume.pt if there is one; returns the log's last row.

    Args:
        folder: gets resume.pt, log.jsonl and log.csv.
        epoch_done: is called on rank 0 after every epoch, with the number of epochs done.
        name_videos: returns the ids of videos by their numbers in batches, for errors.

    Raises:
        Interrupted: a signal came; everything was saved first.
        VidsslError: the loss or a weight is not finite; a state that is was saved before.
    """
    optimizer = prepare(method, spec, runtime)
    per_epoch, end = batches.steps_per_epoch, spec.epochs * batches.steps_per_epoch
    saves = Saves(folder, method, optimizer, per_epoch, runtime.save_every, progress.say)
    diverging = DivergenceWatch(method, optimizer, folder, name_videos)
    begin, log_rows = saves.load()
    _tell_of_resuming(progress, description, begin / per_epoch, spec.epochs)
    model, meter, watch = over_ranks(method), Meter(runtime.device), CollapseWatch()
    with (
        stop_requests() as stop,
        log_of_rank_zero(folder, log_rows, progress) as log,
        progress.task(description, end, "step", begin) as task,
        contextlib.closing(_steps(batches, seed, begin, end, meter)) as steps,
        fastest_kernels(),
    ):
        for step_state, micro_batches in steps:
            rate = learning_rate(spec, step_state.epochs)
            set_learning_rate(optimizer, rate)
            outputs = train_step(method, model, optimizer, micro_batches, step_state)
            meter.add(outputs, samples=spec.batch_size)
            diverging.note(step_state, rate, micro_batches, outputs)
            task.advance()
            done = step_state.step + 1
            epoch_ends = done % per_epoch == 0
            # once in a while: fetch the figures (waits for the device) and write them down
            if epoch_ends or done % runtime.log_every == 0:
                diverging.check_losses()
                row = {"epoch": step_state.epoch + 1, "step": done, "lr": rate} | meter.fetch()
                _write(row, log, task, watch, collapse_sentence(row, spec, method))
            # once in a while: an epoch ends. Before saving, so that a kill cannot skip it.
            if epoch_ends:
                _end_epoch(diverging, epoch_done, step_state.epoch + 1)
            # once in a while: save. Ranks must agree, so they ask at the same steps.
            asked = distributed.world_size() == 1 or epoch_ends or done % ASK_RANKS_EVERY == 0
            if asked and _save_if_due(saves, diverging, log.count, done, end, bool(stop)):
                raise _interrupted(step_state.epoch + 1, spec.epochs, stop.signal_number)
        return log.last


def _end_epoch(diverging: DivergenceWatch, epoch_done: Callable[[int], None], epochs: int) -> None:
    diverging.check_weights()
    if distributed.rank() == 0:
        epoch_done(epochs)


def _save_if_due(
    saves: Saves,
    diverging: DivergenceWatch,
    log_rows: int,
    done: int,
    end: int,
    stopping: bool,
) -> bool:
    """Saves if it is time to, and returns whether training stops here. Every rank must call it.

    Args:
        done, end: steps done, and steps of the whole training.
        stopping: a signal came to this rank.

    Raises:
        VidsslError: the loss or a weight is not finite; nothing is saved over the last good state.
    """
    stopping = distributed.any_rank(stopping)
    due = distributed.any_rank(saves.due)
    if stopping or due or done == end:
        diverging.check_losses()
        diverging.check_weights()
        saves.save(done, log_rows)
    return stopping and done < end


def _tell_of_resuming(progress: Progress, description: str, done: float, epochs: int) -> None:
    if 0 < done < epochs:
        progress.say(f"{description}: going on from epoch {int(done) + 1} of {epochs}")


def _interrupted(epoch: int, epochs: int, signal_number: int | None) -> Interrupted:
    return Interrupted(
        f"interrupted in epoch {epoch} of {epochs}; "
        "all is saved, the same command goes on from here",
        signal_number or 15,
    )


@contextlib.contextmanager
def fastest_kernels() -> Iterator[None]:
    """Lets cuDNN try its kernels on the first clips and keep the fastest: all have one shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def prepare(method: Method, spec: TrainSpec, runtime: RuntimeConfig) -> torch.optim.Optimizer:
    """Moves a method to its device, in train mode, and returns its optimiser."""
    method.to(runtime.device).train()
    if runtime.device.type == "cuda":
        method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    _prepare_backbones(method, runtime)
    return make_optimizer(spec, method.parameter_groups())


def _steps(
    batches: Batches, seed: int, begin: int, end: int, meter: Meter
) -> Generator[tuple[StepState, Sequence[ClipBatch]], None, None]:
    """Yields the state and the micro-batches of every optimiser step from `begin` to `end`."""
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
        model: the method itself, or the method under DDP.
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
    """Returns the module that a step calls: the method, under DDP where there are several ranks."""
    if distributed.world_size() == 1:
        return method
    # Queues and BatchNorm statistics are each rank's own, hence no broadcast of buffers. Gradients
    # lie in the buckets that are sent, not beside them. No static graph: it gains nothing here
    # (docs/benchmarks.md), and a step without a loss breaks it.
    with warnings.catch_warnings():
        # What torch 2.15 names instead would still send buffers once, at the beginning.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        model = DistributedDataParallel(
            method, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if next(method.parameters()).device.type == "cpu":
        model.register_comm_hook(
            None, lambda state, bucket: distributed.mean_in_rank_order(bucket.buffer())
        )
    return model


def _prepare_backbones(method: Method, runtime: RuntimeConfig) -> None:
    for module in method.modules():
        if isinstance(module, Encoder):
            module.half_precision = runtime.half_precision
            if runtime.recompute:
                recompute_activations(module.backbone)
            if runtime.compile:
                module.backbone.compile(dynamic=False)  # clips are all of one shape


def _write(row: Row, log: RankLog, task: Task, watch: CollapseWatch, collapsed: str) -> None:
    """Appends a row to the log, shows some of its figures beside the bar, and warns of collapse.

    Args:
        collapsed: what :func:`vidssl.engine.collapse.collapse_sentence` returns for the row.
    """
    log.append(row)
    shown = {
        name: row[name]
        for name in ("loss", "top1", "knn", "purity", "prototype_entropy")
        if isinstance(row.get(name), float) and math.isfinite(row[name])  # type: ignore[arg-type]
    }
    task.advance(0, epoch=f"{row['epoch']}", **shown)  # type: ignore[arg-type]
    watch.check_row(task, row, collapsed)
