"""A workspace of every kind of artifact and of every kind of unfinished run, and who reads what.

Its commands are those of :mod:`old_workspace`, typed anew: 8 videos of 24 pixels, and one that
cannot be decoded.
"""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import old_workspace as old
from forked_commands import Ended, at_call, end_by, run_forked
from old_workspace import CPU, FLOW, FRESH, ON, PACK, PAIR, QUEUE, SMALL, Words

from vidssl.backbones import BACKBONES
from vidssl.engine import loop, resume
from vidssl.evaluation import feature_cache, features
from vidssl.shards.writer import ShardWriter

BROKEN = "broken.mp4"
LEFT_OUT = 3  # exit code where videos are left out
BOTH = ("-c", "rgb-coclr", "-c", "flow-infonce/v002")
TUNE = ("--crops", "centre", *SMALL)

FINISHED: dict[str, Words] = {
    "flow": FLOW,
    "pack 0": (*PACK, "--size", 36, "--shard", "0/2"),
    "pack 1": (*PACK, "--size", 36, "--shard", "1/2"),
    "pretrain rgb": old.FINISHED["pretrain rgb"],
    "pretrain flow": old.FINISHED["pretrain flow"],
    "cotrain": old.FINISHED["cotrain"],
    "finetune": ("finetune", "-c", "rgb-coclr", "--epochs", 2, *TUNE),
    "probe": old.FINISHED["probe"],
    "probe both": ("probe", *BOTH, "--set", "epochs=5", *ON),
    "retrieve": old.FINISHED["retrieve"],
    "retrieve both": old.FINISHED["retrieve both"],
    "baselines": old.FINISHED["baselines"],
}

# How each was stopped: after or before the call of a function whose count is given.
Stop = Callable[[], None]


def stopped(owner: object, name: str, count: int, number: int, after: bool) -> Stop:
    """Returns what lets a signal end a process at a call."""
    return lambda: at_call(owner, name, count, end_by(number), after)


KILL, ASK = signal.SIGKILL, signal.SIGTERM
UNEMBEDDED: Words = ("retrieve", "--evaluate", "-c", "flow-infonce/v001", "--name", "later", *ON)
UNFINISHED: dict[str, tuple[str, Words, Stop | None]] = {
    # name: (KIND/NAME of the run, command, how it was stopped)
    "flow 0": ("flow/parted", (*FLOW, "--bound", 5, "--name", "parted", "--shard", "0/3"), None),
    "flow 1": (
        "flow/parted",
        (*FLOW, "--bound", 5, "--name", "parted", "--shard", "1/3"),
        stopped(ShardWriter, "add", 1, KILL, True),
    ),
    "pack": (
        "pack/killed",
        (*PACK, "--size", 24, "--name", "killed"),
        stopped(ShardWriter, "add", 3, KILL, True),
    ),
    "infonce": (
        "checkpoint/infonce-killed",
        old.UNFINISHED["checkpoint/infonce-killed"],
        stopped(resume, "save_resume", 9, KILL, False),
    ),
    "vicc": (
        "checkpoint/vicc-stopped",
        old.UNFINISHED["checkpoint/vicc-stopped"],
        stopped(loop, "train_step", 7, ASK, True),
    ),
    "coclr": (
        "checkpoint/coclr-stopped",
        old.UNFINISHED["checkpoint/coclr-stopped"],
        stopped(loop, "train_step", 8, ASK, True),
    ),
    "finetune": (
        "checkpoint/killed-finetuned",
        old.UNFINISHED["checkpoint/killed-finetuned"],
        stopped(loop, "train_step", 5, KILL, True),
    ),
    "features": (
        "features/flow-infonce",
        UNEMBEDDED,
        stopped(features, "embed_videos", 3, KILL, False),
    ),
    "tested": (
        "finetune/tested",
        ("finetune", "-c", "rgb-coclr", "--epochs", 1, "--name", "tested", *TUNE),
        stopped(features, "join_features", 1, KILL, False),
    ),
    "diverged": ("checkpoint/diverged", old.FAILING, None),
}
SHARED = ("flow 0", "flow 1")
WHOLE_FLOW: Words = (*FLOW, "--bound", 5, "--name", "parted")

# New work that reads what is finished; none of it changes what another one reads.
AGAIN = ("--name", "again")
NEW: dict[str, Words] = {
    "flow-diff": ("flow-diff", "flow/main/v001", "pack/main/v001"),
    "flow of some": ("extract-flow", "VIDEOS/right", *FLOW[2:], *AGAIN),
    "more flow": ("extract-flow", "VIDEOS/right", *FLOW[2:]),
    "pack again": (*PACK, "--size", 30, *AGAIN),
    "pretrain again": ("pretrain", "--epochs", 1, *AGAIN, *FRESH, *QUEUE),
    "pretrain on": (
        *("pretrain", "--epochs", 1, "--init-from", "rgb-infonce", *AGAIN),
        *(*FRESH, *QUEUE),
    ),
    "cotrain again": ("cotrain", *PAIR, "--epochs", 1, *AGAIN, *SMALL, *QUEUE),
    "finetune again": ("finetune", "-c", "rgb-coclr", "--epochs", 1, *AGAIN, *TUNE),
    "probe again": ("probe", "-c", "rgb-coclr", "--set", "epochs=5", *AGAIN, *ON),
    "probe both again": ("probe", *BOTH, "--set", "epochs=5", *AGAIN, *ON),
    "retrieve again": ("retrieve", "--evaluate", "-c", "rgb-coclr", *AGAIN, *ON),
    "retrieve both again": ("retrieve", "--evaluate", *BOTH, *AGAIN, *ON),
    "baselines again": ("baselines", "--seed", 1, *ON),
    "query": (
        *("retrieve", "VIDEOS/down/1.mp4", "-c", "rgb-coclr", "--keep-self", "--k", 3),
        *("--pack", "main", *CPU),
    ),
    "export": ("export", "rgb-coclr", "--out", "OUT/exported"),
}
REPORTS: dict[str, Words] = {"status": ("status",), "verify": ("verify",)}

COMMANDS: dict[str, Words] = (
    {f"{name} typed again": words for name, words in FINISHED.items()}
    | {f"{name} goes on": words for name, (_, words, _) in UNFINISHED.items()}
    | {"whole flow goes on": WHOLE_FLOW}
    | NEW
    | REPORTS
)

EVALUATIONS = ["probe again", "probe both again", "retrieve again", "retrieve both again", "query"]
TRAININGS = ["pretrain again", "pretrain on", "cotrain again", "finetune again"]
READERS: dict[str, list[str]] = {
    "flow": ["flow-diff", "more flow", "pack again", "flow typed again", "flow 1 goes on"],
    "pack": [*TRAININGS, *EVALUATIONS, "baselines again", "flow-diff", "pack 0 typed again"],
    "annotations": [*TRAININGS, *EVALUATIONS, "baselines again", "pack 1 typed again"],
    "checkpoint": [*EVALUATIONS, *TRAININGS, "export", "cotrain typed again", "coclr goes on"],
    "features": [*EVALUATIONS, "probe typed again", "retrieve both typed again"],
    "probe": ["probe typed again", "probe both typed again", "probe both again"],
    "retrieval": ["retrieve typed again", "retrieve both typed again", "retrieve again"],
    "finetune": ["finetune typed again", "finetune again"],
}
BASELINES = ["baselines typed again", "baselines again"]
OF_ALL = ["probe again", "pretrain again", "pack goes on", "retrieve typed again", "query"]


def readers_of(relative: str) -> list[str]:
    """Returns the names of the commands that read a file of the workspace."""
    kind, _, rest = relative.partition("/")
    name = rest.partition("/")[0]
    if "/.run-" in relative:
        mine = [f"{n} goes on" for n, (run, _, _) in UNFINISHED.items() if run == f"{kind}/{name}"]
        return [*mine, "whole flow goes on"] if (kind, name) == ("flow", "parted") else mine
    if name.startswith("baseline-"):
        return BASELINES
    return READERS.get(kind, OF_ALL)


def prepare() -> None:
    """Lets this process, and so its forks, know the small network and short parts."""
    BACKBONES["mite"] = old.Mite
    feature_cache.PART_VIDEOS = 3


def run(root: Path, words: Words, first: Callable[[], object] = lambda: None) -> Ended:
    """Types a command in the workspace of a folder."""
    out = [str(word).replace("OUT/", f"{root}/") for word in words]
    return run_forked([*old.typed(out, root), "--json", "-w", str(root / "workspace")], first)


def build(root: Path) -> Path:
    """Makes videos and workspace in a folder; returns the folder."""
    with tarfile.open(old.ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    shutil.rmtree(root / "workspace")
    (root / "videos" / "down" / BROKEN).write_bytes(b"no video")
    for name, words in FINISHED.items():
        ended = run(root, words)
        expected = (0, LEFT_OUT) if words[0] in ("extract-flow", "pack") else (0,)
        assert ended.code in expected, (name, ended)
    for name, (_, words, stop) in UNFINISHED.items():
        if stop is not None:
            ended = run(root, words, stop)
            assert ended.code in (-KILL, 128 + ASK), (name, ended)
        else:
            ended = run(root, words)
            assert ended.code == (1 if name == "diverged" else 0), (name, ended)
    return root


def copy(base: Path, root: Path) -> None:
    """Copies videos and workspace: finished artifacts, which nothing changes, by links."""
    for folder in ("videos", "workspace"):
        shutil.copytree(base / folder, root / folder, copy_function=_link_or_copy, symlinks=True)
    shutil.copy(base / "splits.csv", root / "splits.csv")


def _link_or_copy(source: str, target: str) -> None:
    if "/.run-" in source or source.endswith((".lock", ".json", ".csv")):
        shutil.copy2(source, target)
    else:
        os.link(source, target)
