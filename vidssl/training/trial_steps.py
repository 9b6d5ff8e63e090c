"""Forecasts what a training run would take, by a few of its steps that are written nowhere.

The steps are real ones: of the run's own loader, model, optimiser and device. The method is changed
by them and must not be trained afterwards.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidssl.base import distributed
from vidssl.base.cores_and_memory import free_memory
from vidssl.base.progress import Progress
from vidssl.clips.batch import ClipBatch
from vidssl.clips.frame_reader import FrameReader, FrameReaderWrapper
from vidssl.clips.loader import DECODED_AHEAD, ClipLoader
from vidssl.engine.learning_rate import learning_rate, set_learning_rate
from vidssl.engine.loop import RuntimeConfig, fastest_kernels, over_ranks, prepare, train_step
from vidssl.engine.meter import Meter
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method, StepState

WARM = 3  # steps before those that are timed: these find batches ready, and compile
TIMED = 20  # steps at most
SECONDS = 20.0  # after these no other step begins
FEW = (2, 4)  # samples whose activations are counted, to estimate those of a batch


@dataclass(frozen=True)
class Forecast:
    """What a training run would take.

    Attributes:
        parameters: of all networks, momentum encoders and partners included.
        trained: parameters that the optimiser changes.
        processes: how many share a batch.
        batch_per_process: samples of one optimiser step in one process.
        micro_batch: samples that are computed at once in one process.
        memory: bytes per process. On CUDA the most that was allocated, None if that was too little;
            on a CPU an estimate: networks, optimiser, batches, and what autograd keeps.
        memory_there: bytes that the device has, or that the machine has free; None: not known.
        measured: whether `memory` was measured.
        tried: how many steps were timed.
        samples_per_second, data_wait: of the timed steps, over all processes; None without steps.
        seconds_per_epoch: at that speed; None without steps.
        bytes_per_epoch: that are read from shards.
        note: a sentence for the user, or nothing.
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
        """Returns the forecast as plain data."""
        return asdict(self)


class CountedFrames(FrameReaderWrapper):
    """Counts the frames that are read.

    Attributes:
        frames: how many frames of each view were read.
        samples: how many times frames of a view were read: once for each sample.
    """

    def __init__(self, reader: FrameReader) -> None:
        super().__init__(reader)
        self.frames: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """Returns decoded frames."""
        self.frames[view] += len(indices)
        self.samples[view] += 1
        return super().pictures(view, video, indices, for_copying=for_copying)

    def read(self, view: str, video: int, indices: np.ndarray) -> list[bytes]:
        """Returns frames as they are stored."""
        self.frames[view] += len(indices)
        return super().read(view, video, indices)

    def per_sample(self, view: str) -> float:
        """Returns how many frames of a view one sample took on average."""
        return self.frames[view] / max(self.samples[view], 1)


def try_out(
    method: Method,
    loader: ClipLoader,
    spec: TrainSpec,
    runtime: RuntimeConfig,
    seed: int,
    counted: CountedFrames,
    progress: Progress,
) -> Forecast:
    """Does a few steps and returns the forecast. All ranks must call it; rank 0's result counts.

    Args:
        method: as training would begin with it; it is changed.
        counted: the reader that `loader` reads through.
    """
    method.assume_queue_full()
    optimizer = prepare(method, spec, runtime)
    share = spec.batch_size // distributed.world_size()
    parameters = list(method.parameters())
    cuda = runtime.device.type == "cuda"
    memory = None if cuda else _estimate(method, optimizer, loader, spec)
    there = torch.cuda.mem_get_info(runtime.device)[1] if cuda else free_memory()
    forecast = Forecast(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        processes=distributed.world_size(),
        batch_per_process=share,
        micro_batch=share // spec.accumulate,
        memory=memory,
        memory_there=there,
        measured=cuda,
        steps_per_epoch=loader.steps_per_epoch,
        epochs=spec.epochs,
        tried=0,
        samples_per_second=None,
        data_wait=None,
        seconds_per_epoch=None,
        bytes_per_epoch=0,
    )
    if memory is not None and there is not None and memory > there:
        forecast = replace(
            forecast, note="no step was tried: there is too little free memory for one"
        )
    else:
        trial = _Trial(method, optimizer, loader, spec, runtime, seed)
        forecast = _with_trial(forecast, trial, progress)
    samples = loader.steps_per_epoch * spec.batch_size
    views = loader.sampler.views
    to_read = sum(counted.frame_bytes(view) * counted.per_sample(view) for view in views)
    return replace(forecast, bytes_per_epoch=round(samples * to_read))


@dataclass(frozen=True)
class _Trial:
    """What the steps of a trial are done with: all that training would begin with."""

    method: Method
    optimizer: torch.optim.Optimizer
    loader: ClipLoader
    spec: TrainSpec
    runtime: RuntimeConfig
    seed: int


def _with_trial(forecast: Forecast, trial: _Trial, progress: Progress) -> Forecast:
    """Returns the forecast with what a trial of a few steps measures.

    On CUDA a trial that does not fit in memory leaves a note instead.
    """
    cuda = forecast.measured
    if cuda:
        torch.cuda.reset_peak_memory_stats(trial.runtime.device)
    try:
        tried, figures = _try_steps(trial, progress)
    except torch.OutOfMemoryError:
        if distributed.world_size() > 1:
            raise  # the other ranks wait for this one
        note = "a step does not fit: take --recompute, or more micro-batches (--set accumulate=2)"
        return replace(forecast, note=note)
    if cuda:
        forecast = replace(forecast, memory=torch.cuda.max_memory_allocated(trial.runtime.device))
    speed = float(figures["samples_per_second"] or 0)
    seconds = forecast.steps_per_epoch * trial.spec.batch_size / speed
    return replace(
        forecast,
        tried=tried,
        samples_per_second=speed,
        data_wait=float(figures["data_wait"] or 0),
        seconds_per_epoch=seconds,
    )


def _try_steps(trial: _Trial, progress: Progress) -> tuple[int, Mapping[str, float | int | None]]:
    """Returns how many steps were timed, and their figures as in a row of the log."""
    model, meter = over_ranks(trial.method), Meter(trial.runtime.device)
    begin, per_epoch, tried = time.monotonic(), trial.loader.steps_per_epoch, 0
    ready = trial.loader.steps(0, WARM + TIMED)
    with fastest_kernels(), progress.task("trial", WARM + TIMED, "step") as task:
        for step in range(WARM + TIMED):
            with meter.waiting():
                micro_batches = next(ready)
            step_state = StepState(trial.seed, step // per_epoch, step, per_epoch)
            set_learning_rate(trial.optimizer, learning_rate(trial.spec, step / per_epoch))
            outputs = train_step(trial.method, model, trial.optimizer, micro_batches, step_state)
            meter.add(outputs, trial.spec.batch_size)
            tried += 1
            task.advance()
            late = distributed.any_rank(time.monotonic() - begin > SECONDS)
            if late:
                break
            if step + 1 == WARM:
                meter.fetch()  # waits for the device, and starts to measure
                tried = 0
    figures = meter.fetch()
    ready.close()  # type: ignore[attr-defined]
    return tried, figures


# ── memory, estimated ────────────────────────────────────────────────────────────────────────


def _estimate(
    method: Method, optimizer: torch.optim.Optimizer, loader: ClipLoader, spec: TrainSpec
) -> int:
    """Returns the bytes that a step would take, estimated from steps of few samples."""
    (first, *_) = next(loader.steps(0, 1))
    samples = len(first.index)
    step_state = StepState(0, 0, 0)
    few = [min(count, samples) for count in FEW]
    kept = [_kept_for_backward(method, _head(first, count), step_state) for count in few]
    optimizer.step()  # so that it has its state
    optimizer.zero_grad(set_to_none=True)
    each = (kept[1] - kept[0]) / max(few[1] - few[0], 1)
    activations = kept[1] + each * (samples - few[1])
    trained = [p for p in method.parameters() if p.requires_grad]
    states = optimizer.state.values()
    state = [x for values in states for x in values.values() if isinstance(x, Tensor)]
    networks = _bytes([*method.parameters(), *method.buffers(), *trained, *state])
    batches = _bytes(first.clips.values()) * spec.accumulate * (DECODED_AHEAD + 2)
    return round(networks + activations + batches)


def _kept_for_backward(method: nn.Module, batch: ClipBatch, step_state: StepState) -> int:
    """Returns the bytes that autograd keeps from forward to backward, without parameters."""
    others = (*method.parameters(), *batch.clips.values())
    known = {tensor.untyped_storage().data_ptr() for tensor in others}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = method(batch, step_state)
    if output.loss is not None:
        output.loss.backward()
    return sum(kept.values())


def _head(batch: ClipBatch, count: int) -> ClipBatch:
    """Returns the first samples of a batch."""
    clips = {view: x[:count].clone() for view, x in batch.clips.items()}
    return ClipBatch(clips, batch.source[:count], batch.label[:count], batch.index[:count])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
