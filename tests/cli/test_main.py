"""How the program speaks of warnings, and how it ends where it was in a process group."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import PATIENCE

# Group of one: gloo's threads are there all the same. What `atexit` was told still happens.
SCRIPT = """
import atexit, sys
import torch.distributed as dist
from vidssl import __main__, cli
from vidssl.base import distributed

class Last:
    def __del__(self):
        print("taken apart", flush=True)

def app():
    if {joins}:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    print("did its work")
    sys.exit({code})

last = Last()
atexit.register(print, "cleaned up")
cli.app = app
__main__.main()
"""


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("code, status", [(0, 0), (None, 0), (3, 3), ("a sentence", 1)])
def test_the_status_is_the_commands(joins: bool, code: object, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(joins=joins, code=repr(code))],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stderr
    said = ["did its work", "cleaned up"]
    assert done.stdout.splitlines() == (said if joins else [*said, "taken apart"])


WARNING = """
import warnings
from vidssl import __main__, cli
from vidssl.base.errors import SlowerWay

def app():
    warnings.warn(SlowerWay("it takes longer"))
    warnings.warn("mind the gap")

cli.app = app
__main__.main()
"""


def test_a_warning_of_ours_is_one_line_and_others_stay_as_they_are() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARNING], capture_output=True, text=True, timeout=PATIENCE
    )
    ours, *others = done.stderr.splitlines()
    assert ours == "vidssl: it takes longer"
    assert "UserWarning: mind the gap" in others[0]
