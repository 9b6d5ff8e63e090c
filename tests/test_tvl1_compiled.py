"""TV-L1's kernels compile for a real GPU, which the interpreter cannot show, without spilling."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_tvl1.py"
MOST = {"registers": 128, "stack": 0}
STEP_INSTRUCTIONS = 300  # a pixel: at 380 the issue of instructions, not memory, would be the limit

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Triton's assembler"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
]


def test_kernels_compile_for_hopper_without_spilling(tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True, text=True, env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {row["kernel"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(found) == ["plan", "enter", "linearise", "smooth", "step", "judge"]
    for name, row in found.items():
        assert {key: row[key] for key in MOST if row[key] > MOST[key]} == {}, name
    assert 100 < found["step"]["instructions per pixel"] < STEP_INSTRUCTIONS
