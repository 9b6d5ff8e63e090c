"""TV-L1's kernels compile for a real GPU, which the interpreter cannot show, without spilling."""

from __future__ import annotations

from pathlib import Path

from compiling import NEEDS_ASSEMBLER, compiled

SCRIPT = Path(__file__).parent / "compile_tvl1.py"
MOST = {"registers": 128, "stack": 0, "shared": 4096}
# Of one warp with 4 rows in flight: 13 find room on a multiprocessor, three for each scheduler.
MOST_OF_TILES = {"registers": 152, "stack": 0, "shared": 0}
STEP_INSTRUCTIONS = 300  # a pixel: at 380 the issue of instructions, not memory, would be the limit
TILE_INSTRUCTIONS = 84  # a pixel and iteration: at 100 it would be so

pytestmark = NEEDS_ASSEMBLER


def test_kernels_compile_for_hopper_without_spilling(tmp_path: Path):
    rows = compiled(SCRIPT, tmp_path)
    found = {row["kernel"]: row for row in rows if "kernel" in row}
    single = ["plan", "enter", "linearise", "smooth", "step", "judge"]
    assert list(found) == [*single, "iterate", "judge_tiles"]
    for name, row in found.items():
        most = MOST if name in single else MOST_OF_TILES
        assert {key: row[key] for key in most if row[key] > most[key]} == {}, name
    assert 100 < found["step"]["instructions per pixel"] < STEP_INSTRUCTIONS
    assert 50 < found["iterate"]["instructions per pixel"] < TILE_INSTRUCTIONS
    step, *tiles = (row for row in rows if "on paper" in row)
    tiles = [row for row in tiles if row["iterations a launch"] == 4]
    assert [row["stop after"] for row in tiles] == [5, 15, 30, 60]
    for row in tiles:
        assert row["bytes"] < step["bytes"] and row["instructions"] < step["instructions"]
