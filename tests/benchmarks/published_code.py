"""CoCLR's published code, run from a checkout that the user names; no part of this project.

https://github.com/TengdaHan/CoCLR
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

# What the scripts import on top, for logs and LMDB, and what is never used here.
UNUSED = (
    "tensorboardX",
    "lmdb",
    "msgpack",
    "joblib",
    "pandas",
    "tqdm",
    "matplotlib",
    "matplotlib.pyplot",
)


def load(checkout: Path, name: str) -> ModuleType:
    """Imports a script of the checkout, such as ``main_nce``, without the packages it never uses.

    Raises:
        SystemExit: there is no such checkout.
    """
    if not (checkout / f"{name}.py").exists():
        sys.exit(f"{checkout} is no checkout of the published code: it has no {name}.py")
    importlib.import_module("torchvision")  # it looks for some of these packages itself
    absent = [m for m in UNUSED if importlib.util.find_spec(m.partition(".")[0]) is None]
    sys.modules.update({module: MagicMock() for module in absent})
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(checkout))
        for module in absent:
            del sys.modules[module]


def augmentation(checkout: Path, frames: int, size: int) -> Callable[[list[Any]], list[Any]]:
    """Returns its training augmentation: both clips' frames (PIL) → as many tensors."""
    with redirect_stdout(StringIO()):
        return load(checkout, "main_nce").get_transform(
            "train", Namespace(img_dim=size, seq_len=frames)
        )


def decode(blobs: Sequence[bytes]) -> list[Any]:
    """Decodes frames as its loader does."""
    from PIL import Image

    return [Image.open(BytesIO(blob)).convert("RGB") for blob in blobs]


# ── its step ─────────────────────────────────────────────────────────────────────────────────


def seconds_per_step(
    checkout: Path,
    method: str,
    samples: int,
    frames: int,
    size: int,
    device: torch.device,
    warm: int,
    seconds: float,
) -> float:
    """Returns the time of a step of its S3D in its own training loop, its queues full.

    Nothing is loaded: the loop gets one batch of noise again and again, in pinned memory.

    Args:
        method: infonce or coclr.
        warm: steps that are not timed.
        seconds: of timed steps, at most; 50 steps at most.
    """
    script = load(checkout, {"infonce": "main_nce", "coclr": "main_coclr"}[method])
    script.tqdm = lambda steps, **_: steps
    script.calc_topk_accuracy = _topk_accuracy
    with redirect_stdout(StringIO()), _alone_in_a_group(device), _without_cuda(device):
        kind = {"infonce": "InfoNCE", "coclr": "CoCLR"}[method]
        model = getattr(script, kind)("s3d").to(device)
        if method == "coclr":
            model.queue_label.fill_(1)
        devices = [device.index or 0] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices)
        groups = [{"params": p} for p in model.parameters()]
        optimizer = torch.optim.Adam(groups, lr=1e-3, weight_decay=1e-5)
        means, deviations = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        normalise = script.T.Normalize(mean=means, std=deviations, channel=1)
        arguments = Namespace(
            model=method, num_seq=2, seq_len=frames, img_dim=size, print=False, print_freq=10**9,
            iteration=1, rank=0, gpu=0, topk=5,
        )  # fmt: skip
        clips = [torch.rand(samples, 3, 2 * frames, size, size) for _ in range(2)]
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # as it does
            clips = [x.pin_memory() for x in clips]
        video = torch.arange(samples)
        batch = (clips[0], video) if method == "infonce" else (clips, video, video)
        again = _Again(batch, device, warm, seconds)
        script.train_one_epoch(
            again, model, torch.nn.CrossEntropyLoss(), optimizer,
            script.transforms.Compose([normalise]), 0, arguments,
        )  # fmt: skip
    return again.seconds_per_step()


def _topk_accuracy(
    output: torch.Tensor, target: torch.Tensor, topk: Sequence[int]
) -> list[torch.Tensor]:
    """Returns what its function of that name gives, in which newer torch refuses a view."""
    right = target == output.topk(max(topk)).indices.T
    return [right[:k].float().sum() / len(target) for k in topk]


class _Again:
    """One batch again and again, which notes when each is asked for."""

    def __init__(self, batch: Any, device: torch.device, warm: int, seconds: float) -> None:
        self.batch, self.device, self.warm, self.seconds = batch, device, warm, seconds
        self.times: list[float] = []

    def __len__(self) -> int:
        return self.warm + 50

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            self._note()
            enough = len(self.times) >= self.warm + 2
            if enough and self.times[-1] - self.times[self.warm] > self.seconds:
                return
            yield self.batch
        self._note()

    def _note(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())

    def seconds_per_step(self) -> float:
        return (self.times[-1] - self.times[self.warm]) / (len(self.times) - 1 - self.warm)


@contextmanager
def _alone_in_a_group(device: torch.device) -> Iterator[None]:
    """Its code knows DDP alone: a process group of one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextmanager
def _without_cuda(device: torch.device) -> Iterator[None]:
    """On a CPU tensors stay where they are, though its code sends them to CUDA."""
    if device.type == "cuda":
        yield
        return
    with patch.object(torch.Tensor, "cuda", lambda self, *_, **__: self):
        yield
