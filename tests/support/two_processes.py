"""Starts training in several gloo processes and reads what each rank ended with."""

from collections.abc import Iterable
from pathlib import Path

import ddp_worker
import torch
from forked import run_ranks


def launch(methods: Iterable[str], folder: Path, stop_at: int = -1, ranks: int = 2) -> None:
    """Trains with several processes, each method in a folder of its own."""
    run_ranks(ddp_worker.main, ",".join(methods), folder, stop_at, ranks=ranks)


def ends(folder: Path) -> list[dict]:
    """Returns what each rank ended with; nothing where training was interrupted."""
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pt"))]
