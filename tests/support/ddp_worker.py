"""Run by test_ddp.py and test_killed_ranks.py under torchrun: trains on this rank's batches.

torchrun --nproc-per-node 2 tests/support/ddp_worker.py METHOD,… FOLDER [STOP [VICTIM KILL]]

Before step STOP rank 1 is asked to stop; before step KILL rank VICTIM is killed.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch
from methods import BLOCKS, BUILDERS, CHANNELS, FRAMES, SIZE, batch, coclr_in_the_batch
from stubs import FixedBatches, StubBlockEncoder, StubEncoder

from vidssl.base import distributed
from vidssl.base.errors import Interrupted, VidsslError
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import METHODS, Method
from vidssl.methods import METHODS_BY_STAGE as METHODS_OF

GLOBAL_BATCH, STEPS = 8, 12
# Enough steps to fill what methods wait for, and k that a queue of 16 has.
FEW = {"queue": 16, "momentum": 0.9, "k": 2, "prototypes": 6, "freeze_prototypes_epochs": 0}


def share(step: int, method: Method) -> list[ClipBatch]:
    (whole,) = batch(step, method, GLOBAL_BATCH)
    rows = GLOBAL_BATCH // distributed.world_size()
    mine = slice(distributed.rank() * rows, (distributed.rank() + 1) * rows)
    clips = {view: x[mine] for view, x in whole.clips.items()}
    return [ClipBatch(clips, whole.source[mine], whole.label[mine], whole.index[mine])]


class Stopping(FixedBatches):
    stop_at = kill_at = victim = -1

    def steps(self, begin, end):
        for step, batches in enumerate(super().steps(begin, end), begin):
            # Only one rank hears the signal; all must stop at the same step.
            if step == self.stop_at and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if step == self.kill_at and distributed.rank() == self.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batches


def linear_encoder(view: str, seed: int) -> StubEncoder:
    size = CHANNELS[view] * FRAMES * SIZE * SIZE
    weight = torch.randn(8, size, generator=torch.Generator().manual_seed(seed)) / size**0.5
    return StubEncoder(view, weight)


def linear(method: str) -> Method:
    """Returns a method with encoders without BatchNorm, where ranks can equal one process."""
    if method in ("cpc", "cocon"):
        return linear_dense(method)
    if method == "coclr-batch":
        return coclr_in_the_batch(linear_encoder("rgb", 0), linear_encoder("flow", 1))
    within = {"negatives": "batch"} if method.endswith("-batch") else {}
    built = METHODS[method.removesuffix("-batch")]
    if method == "finetune":  # without dropout, whose masks are each rank's own
        config = built.Config(classes=3, dropout=0.0)
        return built.build(config, {"rgb": linear_encoder("rgb", 0)}, seed=0)
    fields = dataclasses.fields(built.Config)
    few = {name: v for name, v in FEW.items() if name in {field.name for field in fields}} | within
    if built.name.startswith("vicc"):
        few["queue"] = 0
    encoders = {view: linear_encoder(view, seed) for seed, view in enumerate(CHANNELS)}
    if built.name in METHODS_OF["pretrain"]:
        del encoders["flow"]
    return built.build(built.Config(**few), encoders, seed=0)


def linear_dense(method: str) -> Method:
    built = METHODS[method]
    views = CHANNELS if built.joint else ["rgb"]
    encoders = {view: StubBlockEncoder(view, BLOCKS, CHANNELS[view]) for view in views}
    # Dropout's masks are each rank's own, and would be others in one process.
    config = built.Config(predict=1, temperature=0.1, dropout=0.0)
    return built.build(config, encoders, seed=0)


def train(method: str, folder: Path, stop_at: int, victim: int = -1, kill_at: int = -1) -> None:
    plain = method.removeprefix("linear-").removeprefix("compiled-")
    built = linear(plain) if method.startswith("linear-") else BUILDERS[plain]()
    spec = TrainSpec(epochs=1, batch_size=GLOBAL_BATCH, optimizer="sgd", lr=0.05, weight_decay=0.0)
    batches = Stopping(STEPS, lambda step: share(step, built))
    batches.stop_at, batches.victim, batches.kill_at = stop_at, victim, kill_at
    folder.mkdir(parents=True, exist_ok=True)
    try:
        compiled = method.startswith("compiled-")
        runtime = RuntimeConfig(torch.device("cpu"), compile=compiled, save_every=0.0)
        with distributed.lost_process_is_one_sentence():
            fit(built, batches, spec, runtime, folder, seed=3)
    except Interrupted:
        (folder / f"interrupted.{distributed.rank()}").touch()
        return
    state = {
        "parameters": {n: p.detach() for n, p in built.named_parameters()},
        "buffers": dict(built.named_buffers()),
    }
    torch.save(state, folder / f"rank{distributed.rank()}.pt")


def main(
    methods: str, folder: Path, stop_at: int = -1, victim: int = -1, kill_at: int = -1
) -> None:
    """Trains each of the methods, separated by commas, in a folder of its own."""
    torch.set_num_threads(1)
    distributed.start("cpu")
    for method in methods.split(","):
        try:
            train(method, folder / method, stop_at, victim, kill_at)
        except VidsslError as error:
            (folder / method / f"error.{distributed.rank()}").write_text(str(error))
            distributed.leave(1)
    distributed.leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
