"""Finds the machine's cores and free memory. Imports little: worker processes start quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Returns how many cores this process may use: its share among torchrun's local ranks.

    It counts the cores that the process may run on, or fewer if a container's CPU quota is less.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # macOS lacks it
    here = len(affinity(0)) if affinity else os.cpu_count() or 1
    granted = int(min(here, _quota()))
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_memory() -> int | None:
    """Returns the bytes of memory that are available; None if the system does not tell."""
    return _of_meminfo("MemAvailable:")


def memory() -> int | None:
    """Returns the bytes that this process and its children may fill; None if nothing tells.

    It is the machine's memory, or less where a control group (version 2) grants less.
    """
    machine = _of_meminfo("MemTotal:")
    return None if machine is None else int(min([machine, *map(_memory_of, _groups())]))


def _of_meminfo(field: str) -> int | None:
    try:
        lines = MEMORY.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith(field)]
    return 1024 * int(found[0]) if found else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets PyTorch use one CPU thread.

    Sums are then the same on any number of cores. Small networks are not slower; on a busy machine,
    where threads wait for each other, they are many times faster.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quota() -> float:
    """Returns the cores that control groups (version 2) allow; infinite without a limit."""
    return min(map(_granted_by, _groups()), default=float("inf"))


def _groups() -> list[Path]:
    """Returns the folders of this process's control group and of those above it."""
    try:
        lines = OWN_GROUP.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = PurePosixPath(own.lstrip("/"))
    return [CONTROL_GROUPS / above for above in (group, *group.parents)]


def _memory_of(group: Path) -> float:
    try:
        most = (group / "memory.max").read_text("utf-8").strip()
        return float("inf") if most == "max" else int(most)
    except (OSError, ValueError):
        return float("inf")


def _granted_by(group: Path) -> float:
    try:
        quota, period = (
            (group / "cpu.max").read_text("utf-8").split()
        )  # microseconds of each period
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if quota == "max" else int(quota) / int(period)
