"""What was typed in the workspace that version 0.1 left, for its builder and its test.

A network as small as `tiny` has 165,000 weights, and training keeps each of them five times. The
runs of this workspace have a backbone of their own, so that its archive is a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from paths import DATA
from torch import nn

ARCHIVE = DATA / "formats" / "workspace-0.1.tar.xz"
EXPECTED = "expected.json"
LABELS = ("down", "right")
PER_LABEL = 4
FRAMES = 6
VIDEOS = PER_LABEL * len(LABELS)
PARTS = 3

Words = Sequence[object]


class Mite(nn.Module):
    """Two convolutions, [B,C,T,H,W] → [B,8,T/2,H/8,W/8]."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.dim = 8
        self.blocks = nn.Sequential(
            nn.Conv3d(channels, 4, (1, 5, 5), stride=(1, 4, 4), padding=(0, 2, 2), bias=False),
            nn.BatchNorm3d(4),
            nn.ReLU(inplace=True),
            nn.Conv3d(4, self.dim, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(self.dim),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


# ── commands. VIDEOS and SPLITS stand for what lies beside the workspace. Everything that a default
# would choose by what there is, or by the machine, is said.

CPU = ("--device", "cpu")
FLOW = ("extract-flow", "VIDEOS", "--method", "dis", "--size", 0, "--stored-size", 24)
FLOW += ("--codec", "jpeg80", "--workers", 1, *CPU)
PACK = ("pack", "VIDEOS", "--labels", "SPLITS", "--derived", "flow/main/v001")
PACK += ("--quality", 60, "--workers", 1)
ON = ("--pack", "main", "--split", "split1", *CPU)
SMALL = ("--recipe", "tiny", "--batch-size", 2, "--set", "frames=4", "--set", "stride=1")
SMALL += ("--set", "size=32", "--save-every", 0, *ON)
FRESH = ("--backbone", "mite", "--set", "project=8", *SMALL)
QUEUE = ("--set", "queue=4")
BOTH = ("-c", "rgb-coclr", "-c", "flow-infonce/v002")
PAIR = ("--student", "rgb-infonce", "--partner", "flow-infonce/v002", "--k", 1)

# Finished ones, in the order in which they were typed.
FINISHED: dict[str, Words] = {
    "extract-flow": FLOW,
    "pack": (*PACK, "--size", 36),
    "pretrain rgb": ("pretrain", "--epochs", 3, *FRESH, *QUEUE),
    "pretrain flow": (
        *("pretrain", "--stream", "flow", "--epochs", 2, "--snapshot-epochs", 1),
        *(*FRESH, *QUEUE),
    ),
    "cotrain": ("cotrain", *PAIR, "--epochs", 3, *SMALL, *QUEUE),
    "finetune": ("finetune", "-c", "rgb-coclr", "--epochs", 2, "--crops", "centre", *SMALL),
    "probe": ("probe", "-c", "rgb-coclr", "--set", "epochs=5", *ON),
    "retrieve": ("retrieve", "--evaluate", "-c", "rgb-coclr", *ON),
    "retrieve both": ("retrieve", "--evaluate", *BOTH, *ON),
    "baselines": ("baselines", *ON),
}

# Unfinished ones, by KIND/NAME; none of them needs another. The first is divided into parts.
UNFINISHED: dict[str, Words] = {
    "flow/parted": (*FLOW, "--bound", 5, "--name", "parted"),
    "pack/killed": (*PACK, "--size", 24, "--name", "killed"),
    "checkpoint/infonce-killed": (
        *("pretrain", "--epochs", 5, "--name", "infonce-killed", *FRESH, *QUEUE),
    ),
    "checkpoint/vicc-stopped": (
        *("pretrain", "--method", "vicc", "--stream", "flow", "--name", "vicc-stopped"),
        *("--epochs", 4, "--set", "prototypes=5", "--set", "queue_from_epoch=1", *FRESH, *QUEUE),
    ),
    "checkpoint/coclr-stopped": (
        *("cotrain", *PAIR, "--epochs", 5, "--name", "coclr-stopped", *SMALL, *QUEUE),
    ),
    "checkpoint/killed-finetuned": (
        *("finetune", "-c", "rgb-coclr", "--epochs", 4, "--name", "killed"),
        *("--crops", "centre", *SMALL),
    ),
}
TRAININGS = [shelf for shelf in UNFINISHED if shelf.startswith("checkpoint/")]

# One that ended in an error, and would again.
FAILED = "checkpoint/diverged"
FAILING: Words = ("pretrain", "--epochs", 2, "--name", "diverged", *FRESH, *QUEUE)
FAILING += ("--set", "lr=1e30", "--save-every", 60)

# What was never typed there, and goes on from what was finished.
LATER: dict[str, Words] = {
    "probe": ("probe", "-c", "flow-infonce/v002", "--set", "epochs=5", *ON),
    "retrieve": ("retrieve", "--evaluate", "-c", "flow-infonce/v002", *ON),
    "query": (
        *("retrieve", "VIDEOS/down/1.mp4", "-c", "rgb-coclr", "--keep-self", "--k", 3),
        *("--pack", "main", *CPU),
    ),
    "cotrain": (
        *("cotrain", "--stream", "flow", "--student", "flow-infonce/v002"),
        *("--partner", "rgb-coclr", "--k", 1, "--epochs", 3, *SMALL, *QUEUE),
    ),
}


def typed(words: Words, root: Path) -> list[str]:
    """Gives the words with the places of a workspace's videos and splits."""
    places = {"VIDEOS": str(root / "videos"), "SPLITS": str(root / "splits.csv")}
    first = [str(word).partition("/") for word in words]
    return [places.get(word, word) + slash + rest for word, slash, rest in first]


def without_places(value: object) -> object:
    """Leaves out what names a place on the machine, of what `--json` prints."""
    if isinstance(value, dict):
        places = ("path", "folder", "workspace", "query")
        return {key: without_places(v) for key, v in value.items() if key not in places}
    return [without_places(v) for v in value] if isinstance(value, list) else value
