"""Parts: a run over videos divided among processes that share nothing but the workspace.

Each process is told its number and how many there are, by `--shard 3/8` or by what Slurm and
torchrun set, and all of them divide the same list by the same rule, without a word between them.
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
        by: who says so: --shard, or whose variables.
    """

    index: int
    count: int
    by: str = "--shard"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def choose_part(text: str | None, variables: Mapping[str, str]) -> Part | None:
    """Returns the part that `--shard` names, else the one of Slurm's or torchrun's variables.

    Args:
        text: `I/N`, or None.
        variables: of the environment.

    Returns:
        None where one process does everything.

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
    """Returns the part by a Slurm array, by the processes of one job, or by both together."""
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
    """Returns the task's place among those of its srun.

    A batch script itself has SLURM_PROCID and SLURM_NTASKS as well, and yet is one process.
    """
    return _place(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm")


def _torchrun(variables: Mapping[str, str]) -> Part | None:
    return _place(variables, "RANK", "WORLD_SIZE", "torchrun")


def _place(variables: Mapping[str, str], index: str, count: str, by: str) -> Part | None:
    own, all_ = _number(variables, index), _number(variables, count)
    if own is None or all_ is None or own >= all_ or all_ == 1:
        return None
    return Part(own, all_, by)


def _number(variables: Mapping[str, str], name: str, instead: int | None = None) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isdecimal() else instead


def divide(seconds: Sequence[float], count: int) -> list[int]:
    """Returns the part of each video, so that all parts take about equally long.

    The longest goes first, each to the part that has the least so far (Graham 1969, "Bounds on
    multiprocessing timing anomalies": at most 4/3 of the best possible). The result depends on
    nothing but the arguments.

    Args:
        seconds: how long each video is; 0 where that is unknown: counts as the mean of the rest.
        count: of parts.
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
