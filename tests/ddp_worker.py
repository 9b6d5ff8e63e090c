"""Run by test_ddp.py under torchrun: trains on this rank's share of the batches.

    python -m torch.distributed.run --nproc-per-node 2 tests/ddp_worker.py METHOD FOLDER [STOP]
"""

import os
import signal
import sys
from pathlib import Path

import torch
from methods import METHODS, batch
from stubs import FixedBatches, StubBlockEncoder, StubEncoder

from vidssl import distributed
from vidssl.clips import ClipBatch
from vidssl.engine import Place, fit
from vidssl.errors import Interrupted
from vidssl.objectives import CPC, CPCConfig, InfoNCE, InfoNCEConfig, Objective
from vidssl.optimisation import TrainSpec

GLOBAL_BATCH, STEPS = 8, 12


def share(step: int, objective: Objective) -> list[ClipBatch]:
    (whole,) = batch(step, objective, GLOBAL_BATCH)
    rows = GLOBAL_BATCH // distributed.world_size()
    mine = slice(distributed.rank() * rows, (distributed.rank() + 1) * rows)
    clips = {view: x[mine] for view, x in whole.clips.items()}
    return [ClipBatch(clips, whole.source[mine], whole.label[mine], whole.index[mine])]


class Stopping(FixedBatches):
    stop_at = -1

    def epoch(self, epoch, first_step=0):
        for step, batches in enumerate(super().epoch(epoch, first_step), first_step):
            # Only one rank hears the signal; all must stop at the same step.
            if step == self.stop_at and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batches


def linear_infonce() -> InfoNCE:
    size = 3 * 4 * 32 * 32
    weight = torch.randn(8, size, generator=torch.Generator().manual_seed(0)) / size**0.5
    return InfoNCE(InfoNCEConfig(queue=16, momentum=0.9), StubEncoder("rgb", weight))


def linear_cpc() -> CPC:
    # Dropout's masks are each rank's own, and would be others in one process.
    return CPC(CPCConfig(predict=1, temperature=0.1, dropout=0.0), StubBlockEncoder("rgb", 3))


LINEAR = {"linear": linear_infonce, "linear_cpc": linear_cpc}


def main(method: str, folder: Path, stop_at: int = -1) -> None:
    torch.set_num_threads(1)
    distributed.start("cpu")
    objective = (LINEAR | METHODS)[method]()
    spec = TrainSpec(epochs=1, batch_size=GLOBAL_BATCH, optimizer="sgd", lr=0.05, weight_decay=0.0)
    batches = Stopping(STEPS, lambda step: share(step, objective))
    batches.stop_at = stop_at
    try:
        fit(objective, batches, spec, Place(torch.device("cpu")), folder, seed=3)
    except Interrupted:
        (folder / f"interrupted.{distributed.rank()}").touch()
        distributed.stop()
        return
    state = {
        "parameters": {n: p.detach() for n, p in objective.named_parameters()},
        "buffers": dict(objective.named_buffers()),
    }
    torch.save(state, folder / f"rank{distributed.rank()}.pt")
    distributed.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
