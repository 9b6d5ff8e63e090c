"""TV-L1's kernels compile for a real GPU, which the interpreter cannot show, without spilling."""

from __future__ import annotations

from pathlib import Path

from compiling import NEEDS_ASSEMBLER, compiled

SCRIPT = Path(__file__).parent / "compile_tvl1.py"
MOST = {"registers": 128, "stack": 0, "shared": 4096}
STEP_INSTRUCTIONS = 300  # a pixel: at 380 the issue of instructions, not memory, would be the limit

pytestmark = NEEDS_ASSEMBLER


def test_kernels_compile_for_hopper_without_spilling(tmp_path: Path):
    rows = compiled(SCRIPT, tmp_path)
    found = {row["kernel"]: row for row in rows if "kernel" in row}
    assert list(found) == ["plan", "enter", "linearise", "smooth", "step", "judge"]
    for name, row in found.items():
        assert {key: row[key] for key in MOST if row[key] > MOST[key]} == {}, name
    assert 100 < found["step"]["instructions per pixel"] < STEP_INSTRUCTIONS
