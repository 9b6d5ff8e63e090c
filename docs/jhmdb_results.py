"""Trains every method on JHMDB's 11 classes and measures it: the big table of docs/results.md.

    python docs/jhmdb_results.py VIDEOS WORKSPACE [--splits split1,split2,split3] [--only METHOD,…]
    python docs/jhmdb_results.py VIDEOS WORKSPACE --list       prints the commands, runs nothing
    python docs/jhmdb_results.py VIDEOS WORKSPACE --collect    keeps what is finished, for the page

VIDEOS has a folder per class and splits.csv. Every step is a command of vidssl, printed before it
runs; what is finished is not done again, so the script can be stopped and started at any time, and
several may run at once with different methods. Every stream of every method gets equally many
optimiser steps: those of EPOCHS epochs, or half of them before and half of them in co-training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import results_tables

from vidssl.base.signals import leave_at_once
from vidssl.cli import app

EPOCHS, SEED = 40, 0
STREAMS = ("rgb", "flow")
SPLITS = ("split1", "split2", "split3")


@dataclass(frozen=True)
class Cell:
    """One method's training and measuring on one split.

    Attributes:
        trainings: commands in turn, without split, seed and workspace.
        checkpoints: {stream: name of the checkpoint that is measured}, without the split.
    """

    trainings: list[list[str]]
    checkpoints: dict[str, str]
    only_split1: bool = field(default=False, kw_only=True)


# ── trainings ────────────────────────────────────────────────────────────────────────────────


def _pretrain(method: str, name: str, epochs: int, *more: str) -> list[list[str]]:
    """One run per stream, called STREAM-NAME."""
    return [
        f"pretrain --stream {stream} --method {method} --epochs {epochs} "
        f"--name {stream}-{name}".split()
        + list(more)
        for stream in STREAMS
    ]


def _in_turn(method: str, start: str, name: str, epochs: int, *more: str) -> list[list[str]]:
    """RGB from flow's `start`, then flow from the new RGB."""
    partners = {"rgb": f"flow-{start}", "flow": f"rgb-{name}"}
    return [
        f"cotrain --stream {stream} --method {method} --epochs {epochs} --student {stream}-{start} "
        f"--partner {partners[stream]} --name {stream}-{name}".split()
        + list(more)
        for stream in STREAMS
    ]


def _together(method: str, name: str, *more: str) -> Cell:
    """All streams in one run, which leaves one checkpoint of both."""
    command = f"cotrain --method {method} --views rgb,flow --epochs {EPOCHS} --name {name}"
    return Cell([[*command.split(), *more]], dict.fromkeys(STREAMS, name))


def _per_stream(name: str, trainings: list[list[str]], *, only_split1: bool = False) -> Cell:
    names = {stream: f"{stream}-{name}" for stream in STREAMS}
    return Cell(trainings, names, only_split1=only_split1)


HALF = EPOCHS // 2
_INFONCE_HALF = _pretrain("infonce", "infonce-half", HALF)
_VICC_HALF = _pretrain("vicc", "vicc-half", HALF)


def _coclr(name: str, k: int) -> Cell:
    trainings = _INFONCE_HALF + _in_turn("coclr", "infonce-half", name, HALF, "--k", str(k))
    return _per_stream(name, trainings, only_split1=name != "coclr")


def _two_cycles() -> Cell:
    first = _in_turn("coclr", "infonce-half", "coclr-cycle1", HALF // 2, "--k", "5")
    second = _in_turn("coclr", "coclr-cycle1", "coclr-cycle2", HALF // 2, "--k", "5")
    return _per_stream("coclr-cycle2", _INFONCE_HALF + first + second, only_split1=True)


def _vicc(name: str, prototypes: int) -> Cell:
    trainings = _pretrain("vicc", name, EPOCHS, "--set", f"prototypes={prototypes}")
    return _per_stream(name, trainings, only_split1=name != "vicc")


def _cocon(name: str, *more: str) -> Cell:
    cell = _together("cocon", name, *more)
    return Cell(cell.trainings, cell.checkpoints, only_split1=name != "cocon")


METHODS_BY_STAGE: dict[str, Cell] = {
    "infonce": _per_stream("infonce", _pretrain("infonce", "infonce", EPOCHS)),
    "coclr": _coclr("coclr", 5),
    "ubernce": _per_stream("ubernce", _pretrain("ubernce", "ubernce", EPOCHS)),
    "cmc": _together("cmc", "cmc"),
    "vicc": _vicc("vicc", 100),
    "vicc-cross": _per_stream(
        "vicc-cross", _VICC_HALF + _in_turn("vicc", "vicc-half", "vicc-cross", HALF)
    ),
    "cpc": _per_stream("cpc", _pretrain("cpc", "cpc", EPOCHS)),
    "cocon": _cocon("cocon"),
}
ABLATIONS: dict[str, Cell] = {
    "coclr-k1": _coclr("coclr-k1", 1),
    "coclr-k20": _coclr("coclr-k20", 20),
    "coclr-cycle2": _two_cycles(),
    "vicc-30": _vicc("vicc-30", 30),
    "vicc-300": _vicc("vicc-300", 300),
    "cocon-sim": _cocon("cocon-sim", "--set", "sync_weight=0"),
    "cocon-sync": _cocon("cocon-sync", "--set", "sim_weight=0"),
}
CELLS = METHODS_BY_STAGE | ABLATIONS


# ── commands ─────────────────────────────────────────────────────────────────────────────────


def commands(videos: Path, splits: list[str], only: list[str]) -> Iterator[list[str]]:
    """Returns all commands in the order in which they can run, the first split first."""
    yield ["extract-flow", str(videos)]
    yield ["pack", str(videos), "--labels", str(videos / "splits.csv")]
    for split in splits:
        yield ["baselines", "--backbone", "tiny", "--split", split]
        for name in only:
            cell = CELLS[name]
            if split == SPLITS[0] or not cell.only_split1:
                yield from (_on(split, command) for command in cell.trainings)
                yield from _measure(name, cell, split)


def _on(split: str, command: list[str]) -> list[str]:
    """Trains on one split: names of checkpoints get its name."""
    named = {"--name", "--student", "--partner"}
    words = [
        f"{word}-{split}" if before in named else word
        for before, word in zip(["", *command], command, strict=False)
    ]
    return [*words, "--split", split, "--seed", str(SEED)]


def _measure(name: str, cell: Cell, split: str) -> Iterator[list[str]]:
    given: list[str] = []
    for stream, checkpoint in cell.checkpoints.items():
        which = ["--checkpoint", f"{checkpoint}-{split}"]
        call = [*which, "--stream", stream, "--name", f"{stream}-{name}-{split}"]
        yield ["retrieve", "--evaluate", *call]
        yield ["probe", *call]
        given += which if which != given else []
    both = ["--stream", ",".join(STREAMS), "--name", f"both-{name}-{split}"]
    yield ["retrieve", "--evaluate", *given, *both]
    yield ["probe", *given, *both]


def run(command: list[str], workspace: Path) -> int:
    """Runs one command of vidssl, shown as a user would type it, and gives its exit code."""
    print("vidssl", *command, flush=True)
    try:
        app([*command, "-w", str(workspace), "--quiet"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main() -> None:
    """Runs what is not finished yet, and stops at a signal or goes on after a failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--splits", default=",".join(SPLITS))
    parser.add_argument("--only", default=",".join(CELLS), help="methods and ablations")
    parser.add_argument("--list", action="store_true", help="print the commands")
    parser.add_argument("--collect", action="store_true", help="keep what is finished")
    given = parser.parse_args()
    splits, only = given.splits.split(","), given.only.split(",")
    unknown = sorted(set(only) - set(CELLS)) + sorted(set(splits) - set(SPLITS))
    if unknown:
        parser.error(f"there is no {unknown[0]}: there are {', '.join([*CELLS, *SPLITS])}")
    if given.collect:
        for split in splits:
            archive = results_tables.ARCHIVES / f"jhmdb-{split}.tar.xz"
            print(archive, results_tables.collect(given.workspace, archive, split))
        return
    leave_at_once()
    failed = 0
    for command in commands(given.videos, splits, only):
        if given.list:
            print("vidssl", *command)
            continue
        code = run(command, given.workspace)
        if code in (130, 143):
            sys.exit(code)
        failed += code != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
