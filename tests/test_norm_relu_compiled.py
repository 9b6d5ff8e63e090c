"""The kernels of BatchNorm and ReLU compile for a real GPU without spilling; none is here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_norm_relu.py"
REGISTERS = 128

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
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2 * 6 and {row["maps"] for row in found} == {"bf16", "fp32"}
    for row in found:
        assert row["stack"] == 0 and row["registers"] <= REGISTERS, row
        # Memory, not the issue of instructions, is to be the limit.
        assert 2 < row.get("instructions", 3) < row.get("allowed", 4), row
