"""Starts training in several gloo processes and reads what each rank ended with."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import ddp_worker
import torch
from forked import run_ranks
from paths import SUPPORT
from patience import PATIENCE


def launch(methods: Iterable[str], folder: Path, stop_at: int = -1, ranks: int = 2) -> None:
    """Trains with several processes, each method in a folder of its own."""
    run_ranks(ddp_worker.main, ",".join(methods), folder, stop_at, ranks=ranks)


def torchrun(ranks: int, *arguments: object) -> subprocess.CompletedProcess:
    """Runs ddp_worker.py with these arguments in several processes, until all have ended."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(ranks),
        str(SUPPORT / "ddp_worker.py"), *map(str, arguments),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=environment
    )


def ends(folder: Path) -> list[dict]:
    """Returns what each rank ended with; nothing where training was interrupted."""
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pt"))]
