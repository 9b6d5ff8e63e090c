"""Divides the videos of a run into parts, for processes that share only the workspace.

Each process knows its number and how many there are, from `--shard 3/8` or from the environment
variables of Slurm and torchrun. All of them divide the same list by the same rule, so they need not
talk to each other.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from vidssl.base.errors import UsageError


@dataclass(frozen=True)
class Part:
    """One of several parts of a run.

    Attributes:
        index: counted from 0.
        count: how many parts there are.
        by: where the numbers come from: "--shard", "Slurm" or "torchrun".
    """

    index: int
    count: int
    by: str = "--shard"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def choose_part(text: str | None, variables: Mapping[str, str]) -> Part | None:
    """Returns the part that `--shard` names, else the one that Slurm or torchrun sets.

    Args:
        text: `I/N`, or None.
        variables: of the environment.

    Returns:
        None if one process does everything.

    Raises:
        UsageError: there is no such part.
    """
    part = _parse(text) if text is not None else _of_launcher(variables)
    return part if part is not None and part.count > 1 else None


def _parse(text: str) -> Part:
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not match or int(match[2]) == 0:
        raise UsageError(f"--shard takes I/N, such as 0/8 for the first of 8 parts, not {text!r}")
    index, count = int(match[1]), int(match[2])
    if index >= count:
        raise UsageError(f"there is no part {text}: parts count from 0, so 0/{count} is the first")
    return Part(index, count)


def _of_launcher(variables: Mapping[str, str]) -> Part | None:
    """Returns the part from a Slurm array, from the processes of one job, or from both."""
    jobs, processes = _slurm_array(variables), _torchrun(variables) or _slurm_step(variables)
    if jobs is None or processes is None:
        return jobs or processes
    index = jobs.index * processes.count + processes.index
    return Part(index, jobs.count * processes.count, processes.by)


def _slurm_array(variables: Mapping[str, str]) -> Part | None:
    own, count = (_number(variables, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
    if own is None or count is None:
        return None
    first, last, step = (
        _number(variables, f"SLURM_ARRAY_TASK_{name}", instead)
        for name, instead in (("MIN", 0), ("MAX", count - 1), ("STEP", 1))
    )
    assert first is not None and last is not None and step is not None
    if step < 1 or last != first + step * (count - 1):
        raise UsageError(
            "the Slurm array has gaps, so its numbers say nothing of parts: "
            "give --shard I/N, such as --shard $SLURM_ARRAY_TASK_ID/8"
        )
    return Part((own - first) // step, count, "Slurm")


def _slurm_step(variables: Mapping[str, str]) -> Part | None:
    """Returns the task's number among those of its srun.

    SLURM_NTASKS is no help: a batch script has it and SLURM_PROCID too, and is one process.
    """
    return _numbered(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm")


def _torchrun(variables: Mapping[str, str]) -> Part | None:
    return _numbered(variables, "RANK", "WORLD_SIZE", "torchrun")


def _numbered(variables: Mapping[str, str], index: str, count: str, by: str) -> Part | None:
    own, all_ = _number(variables, index), _number(variables, count)
    if own is None or all_ is None or own >= all_ or all_ == 1:
        return None
    return Part(own, all_, by)


def _number(variables: Mapping[str, str], name: str, instead: int | None = None) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isdecimal() else instead


def divide(seconds: Sequence[float], count: int) -> list[int]:
    """Returns the index of the part that each video goes to; parts take about equally long.

    Videos are taken from the longest to the shortest, and each goes to the part with the fewest
    seconds so far (Graham 1969, "Bounds on multiprocessing timing anomalies": at most 4/3 of the
    best possible). The result depends on the arguments only.

    Args:
        seconds: how long each video is; an unknown length (0) counts as the mean of the others.
        count: how many parts there are.
    """
    known = [length for length in seconds if 0 < length < inf]
    mean = sum(known) / len(known) if known else 1.0
    lengths = [length if 0 < length < inf else mean for length in seconds]
    loads = [(0.0, part) for part in range(count)]
    parts = [0] * len(lengths)
    for video in sorted(range(len(lengths)), key=lambda v: (-lengths[v], v)):
        load, part = heapq.heappop(loads)
        parts[video] = part
        heapq.heappush(loads, (load + lengths[video], part))
    return parts
