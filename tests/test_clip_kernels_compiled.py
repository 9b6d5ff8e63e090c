"""The kernels that make clips compile for a real GPU without spilling; none is here."""

from __future__ import annotations

from pathlib import Path

from compiling import NEEDS_ASSEMBLER, compiled

SCRIPT = Path(__file__).parent / "compile_clips.py"
REGISTERS = 96  # 5 programs of 128 threads on each multiprocessor

pytestmark = NEEDS_ASSEMBLER


def test_kernels_compile_for_hopper_without_spilling(tmp_path: Path):
    found = compiled(SCRIPT, tmp_path)
    assert {row["kernel"] for row in found} == {
        "resize", "means", "change_colour", "filter_side", "look_up",
    }  # fmt: skip
    for row in found:
        assert row["stack"] == 0 and row["registers"] <= REGISTERS, row
