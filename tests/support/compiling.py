"""Kernels compiled for a real GPU by a script of their own, where none is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NEEDS_ASSEMBLER = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Triton's assembler"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
]


def compiled(script: Path, cache: Path) -> list[dict[str, Any]]:
    """Runs a script that prints a line of JSON for each kernel; gives these."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True, text=True, env=environment | {"TRITON_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
