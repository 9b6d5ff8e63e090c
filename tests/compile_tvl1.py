"""Compiles TV-L1's kernels for Hopper GPUs, which needs no GPU, and prints what each one takes.

    python tests/compile_tvl1.py

One JSON object a line: the kernel, registers of a thread, bytes of its stack (registers that were
spilled), of shared memory, and machine instructions per pixel. Must run where Triton's interpreter
is off.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vidssl.views.tvl1 import kernels
from vidssl.views.tvl1.kernels import NUM_WARPS, TILE_H, TILE_W

HOPPER = GPUTarget("cuda", 90, 32)
DISASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
PLANE = 176 * TILE_H * TILE_W  # of 340 × 256
FLOATS = ("u", "p", "data", "slope", "pictures", "partial", "tolerance")
SCALARS = {"data_step", "dual_step", "coupling", "enlargement"}
POINTERS = {name: "*fp32" for name in FLOATS} | {"state": "*i32", "shapes": "*i32", "work": "*i64"}
CONSTANTS = {"plane": PLANE, "S": 5, "H": TILE_H, "W": TILE_W}
SINGLE = ("plan", "judge")  # one warp for each slot


def compiled(name: str) -> Any:
    """Gives a kernel as Triton compiles it; arguments are of the types that launches give."""
    kernel = getattr(kernels, name)
    constants = {one: CONSTANTS[one] for one in kernel.arg_names if one in CONSTANTS}
    types = {
        one: "constexpr"
        if one in CONSTANTS
        else POINTERS.get(one, "fp32" if one in SCALARS else "i32")
        for one in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    warps = 1 if name in SINGLE else NUM_WARPS
    return triton.compile(source, target=HOPPER, options={"num_warps": warps})


def usage(cubin: bytes, pixels_per_thread: float) -> dict[str, float]:
    """Reads what the assembler gave a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        resources, code = (
            subprocess.run(
                [DISASSEMBLER, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED):(\d+)", resources)}
    instructions = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, re.MULTILINE))
    return {
        "registers": numbers["REG"],
        "stack": numbers["STACK"],
        "shared": numbers["SHARED"],
        "instructions per pixel": instructions / pixels_per_thread,
    }


def all_usages() -> Iterator[dict[str, Any]]:
    """Gives every kernel's name and what it takes."""
    for name in ("plan", "enter", "linearise", "smooth", "step", "judge"):
        pixels = 1 if name in SINGLE else TILE_H * TILE_W / (32 * NUM_WARPS)
        yield {"kernel": name} | usage(compiled(name).asm["cubin"], pixels)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in all_usages():
        json.dump(one, sys.stdout)
        print()
