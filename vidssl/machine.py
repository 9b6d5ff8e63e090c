"""What the machine offers. Imports nothing, so that worker processes start quickly."""

from __future__ import annotations

import os


def cores() -> int:
    """Gives the cores this process may use, shared among torchrun's ranks on this machine."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS lacks it
    here = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
