"""What the machine offers. Imports next to nothing, so that worker processes start quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Returns the cores this process may use, shared among torchrun's ranks on this machine.

    They are those it may run on, or fewer where a container's quota grants less time than that.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # macOS lacks it
    here = len(affinity(0)) if affinity else os.cpu_count() or 1
    granted = int(min(here, _quota()))
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_memory() -> int | None:
    """Returns the bytes of memory that programs may still take; None where that is not told."""
    try:
        lines = MEMORY.read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs PyTorch's CPU work in one thread.

    Sums then come out the same on any number of cores. Small networks are no slower: on a busy
    machine, where threads wait for one another, they are many times faster.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quota() -> float:
    """Returns the cores' time that control groups (version 2) grant, infinite where they do not."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:  # not Linux
        return float("inf")
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = PurePosixPath(own.lstrip("/"))
    return min(_granted_by(CONTROL_GROUPS / above) for above in (group, *group.parents))


def _granted_by(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()  # microseconds of each period
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if quota == "max" else int(quota) / int(period)
