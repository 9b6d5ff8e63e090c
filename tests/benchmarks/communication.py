"""Counts the bytes that ranks send each other in a training step, and what follows for many GPUs.

    python tests/benchmarks/communication.py

Trains `tiny` by InfoNCE and CoCLR with 2 and 4 processes (gloo, CPU), with every collective
operation and DDP's buckets counted, and holds the counts against a formula. The formula then gives
S3D at 32×128×128 on 8 and 64 GPUs. Prints the Markdown tables of docs/benchmarks.md and
docs/benchmarks_on_paper.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base import distributed
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import RuntimeConfig, over_ranks, prepare, train_step
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import METHODS, Method, StepState

SAMPLES, FRAMES, SIZE, WIDTH = 4, 4, 32, 128  # of each rank
STEPS = 3
METHODS_BY_STAGE = ("infonce", "coclr")
NVLINK, INFINIBAND = 450e9, 50e9  # bytes/s of a GPU each way: within a machine of 8, between them
PUBLISHED_SAMPLES = 16  # of each GPU


# ── counting ─────────────────────────────────────────────────────────────────────────────────


class Sent:
    """Bytes that this rank hands to collective operations, by what they are."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self._wrapped = {n: getattr(dist, n) for n in ("all_gather", "all_to_all_single")}
        self._mean_in_rank_order = distributed.mean_in_rank_order

    def __enter__(self) -> Sent:
        dist.all_gather = self._all_gather
        dist.all_to_all_single = self._all_to_all
        distributed.mean_in_rank_order = self._mean
        return self

    def __exit__(self, *error: object) -> None:
        for name, function in self._wrapped.items():
            setattr(dist, name, function)
        distributed.mean_in_rank_order = self._mean_in_rank_order

    def _all_gather(self, parts: list[Tensor], rows: Tensor, *more: Any) -> Any:
        kind = "keys, to be put back" if rows.ndim == 2 and self._in_shuffle else "queue"
        self._in_shuffle = False
        self.bytes["gradients" if self._in_gradients else kind] += size(rows)
        return self._wrapped["all_gather"](parts, rows, *more)

    def _all_to_all(self, into: Tensor, rows: Tensor, *more: Any) -> Any:
        self._in_shuffle = True  # the next rows that are gathered are its keys
        self.bytes["clips, shuffled"] += size(rows)
        return self._wrapped["all_to_all_single"](into, rows, *more)

    def _mean(self, gradients: Tensor) -> Any:
        """On CPUs DDP's buckets are averaged by a function of the package."""
        self._in_gradients = True
        try:
            return self._mean_in_rank_order(gradients)
        finally:
            self._in_gradients = False

    _in_shuffle = _in_gradients = False


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def make_method(method: str, backbone: str = "tiny", frames: int = FRAMES) -> Method:
    torch.manual_seed(0)
    channels = {"rgb": 3} if method == "infonce" else {"rgb": 3, "flow": 2}
    encoders = {
        view: Encoder(EncoderSpec(view, backbone, c, frames, 1, SIZE, project=WIDTH))
        for view, c in channels.items()
    }
    kind = METHODS[method]
    return kind.build(kind.Config(queue=64), encoders, 0)


def work(method: str, out: Path) -> None:
    """As one rank: trains a few steps and writes what was sent in the last."""
    torch.set_num_threads(1)
    distributed.start("cpu")
    built = make_method(method)
    built.assume_queue_full()
    optimizer = prepare(built, TrainSpec(), RuntimeConfig(torch.device("cpu")))
    model = over_ranks(built)
    sent = Sent()
    with sent:
        for step in range(STEPS):
            sent.bytes.clear()
            draw = torch.Generator().manual_seed(10 * step + distributed.rank())
            clips = {
                view: torch.randn(SAMPLES, 2, c, FRAMES, SIZE, SIZE, generator=draw)
                for view, c in {"rgb": 3, "flow": 2}.items()
            }
            number = torch.arange(SAMPLES)
            batch = ClipBatch(clips, number, number, number)
            train_step(built, model, optimizer, [batch], StepState(0, 0, step))
    if distributed.rank() == 0:
        out.write_text(json.dumps(sent.bytes))
    distributed.leave()


def counted(method: str, ranks: int) -> dict[str, int]:
    """Returns what rank 0 sends in a step of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sent.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), __file__, "--rank-of", method, "--out", out]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        return dict(json.loads(out.read_text()))


# ── the formula ──────────────────────────────────────────────────────────────────────────────


def formula(method: str, samples: int, clip: int, trained: int, width: int) -> dict[str, int]:
    """Returns the bytes a rank hands over in a step.

    Args:
        samples: of each rank.
        clip: bytes of one clip as the network takes it.
        trained: parameters that are trained.
        width: of the projection.
    """
    row = 4 * width + 8 + 8  # a key, source and label
    return {
        "gradients": 4 * trained,
        "clips, shuffled": samples * clip,
        "keys, to be put back": samples * 4 * width,
        "queue": samples * (row if method == "infonce" else row + 4 * width),
    }


def seconds(sent: dict[str, int], ranks: int, clips_gathered: bool) -> dict[str, float]:
    """Returns the time each kind takes at the links' full speed, nothing overlapped.

    A ring of all-reduce sends each byte 2 (W−1)/W times, one of all-gather W−1 times; of rows that
    are shuffled (W−1)/W go to another rank.
    """
    link = NVLINK if ranks <= 8 else INFINIBAND
    times = {"gradients": 2 * (ranks - 1) / ranks, "clips, shuffled": (ranks - 1) / ranks}
    if clips_gathered:
        times["clips, shuffled"] = ranks - 1
    return {kind: amount * times.get(kind, ranks - 1) / link for kind, amount in sent.items()}


def paper_table() -> str:
    built = make_method("infonce", "s3d", 32)
    trained = sum(p.numel() for p in built.parameters() if p.requires_grad)
    clip = 4 * 3 * 32 * 128 * 128
    lines = [
        "| method | GPUs | what | MB handed over | ms at full speed |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS_BY_STAGE:
        sent = formula(method, PUBLISHED_SAMPLES, clip, trained, WIDTH)
        for ranks in (8, 64):
            took = seconds(sent, ranks, clips_gathered=False)
            gathered = seconds(sent, ranks, clips_gathered=True)
            for kind, amount in sent.items():
                row = f"| {method} | {ranks} | {kind} | {amount / 1e6:.3g} | "
                lines.append(f"{row}{1000 * took[kind]:.3g} |")
            whole, before = sum(took.values()), sum(gathered.values())
            lines.append(f"| {method} | {ranks} | **all** | | **{1000 * whole:.3g}** |")
            lines.append(f"| {method} | {ranks} | all, clips gathered | | {1000 * before:.3g} |")
    return "\n".join(lines)


def count_table() -> str:
    lines = ["| method | processes | what | bytes counted | formula |", "|---|---|---|---|---|"]
    for method in METHODS_BY_STAGE:
        built = make_method(method)
        trained = sum(p.numel() for p in built.parameters() if p.requires_grad)
        wanted = formula(method, SAMPLES, 4 * 3 * FRAMES * SIZE * SIZE, trained, WIDTH)
        for ranks in (2, 4):
            for kind, amount in counted(method, ranks).items():
                lines.append(f"| {method} | {ranks} | {kind} | {amount:,} | {wanted[kind]:,} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rank-of", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.rank_of:
        work(arguments.rank_of, arguments.out)
        return
    print(count_table())
    print()
    print(paper_table())


if __name__ == "__main__":
    main()
