"""Compiles TV-L1's kernels for Hopper GPUs, which needs no GPU, and prints what each one takes.

    python tests/benchmarks/compile_tvl1.py

One JSON object a line: the kernel, registers of a thread, bytes of its stack (registers that were
spilled), of shared memory, and machine instructions per pixel. Then what an iteration of a pixel
costs on paper: bytes from and to the device's memory, instructions, and how many pixels ×
iterations a second an H200's memory and its schedulers would allow. Must run where Triton's
interpreter is off.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vidssl.kernels.tvl1_iteration import step, stop_converged
from vidssl.kernels.tvl1_median import median_filter
from vidssl.kernels.tvl1_stages import enter_scale, next_stage
from vidssl.kernels.tvl1_tiles import NUM_WARPS, TILE_H, TILE_W
from vidssl.kernels.tvl1_warp import linearise

HOPPER = GPUTarget("cuda", 90, 32)
DISASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
PLANE = 176 * TILE_H * TILE_W  # of 340 × 256
FLOATS = ("u", "p", "data", "slope", "pictures", "partial", "tolerance")
SCALARS = {"data_step", "dual_step", "coupling", "enlargement"}
POINTERS = {name: "*fp32" for name in FLOATS} | {"state": "*i32", "shapes": "*i32", "work": "*i64"}
CONSTANTS = {"plane": PLANE, "S": 5, "H": TILE_H, "W": TILE_W}
KERNELS = (next_stage, enter_scale, linearise, median_filter, step, stop_converged)
SINGLE = (next_stage, stop_converged)  # one warp for each slot
BYTES = 60  # of a pixel, that `step` reads and writes

# An H200: bytes a second, and instructions of warps: 132 × 4 schedulers at 1.98 GHz.
MEMORY, ISSUED = 4.8e12, 132 * 4 * 1.98e9
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", re.MULTILINE)


def compiled(kernel: Any) -> Any:
    """Returns a kernel as Triton compiles it; arguments are of the types that launches give."""
    constants = {one: CONSTANTS[one] for one in kernel.arg_names if one in CONSTANTS}
    types = {
        one: "constexpr"
        if one in CONSTANTS
        else POINTERS.get(one, "fp32" if one in SCALARS else "i32")
        for one in kernel.arg_names
    }
    # Buffers and planes begin at multiples of 16 bytes, which launches tell Triton, too.
    aligned: dict[Any, Any] = {
        (place,): [["tt.divisibility", 16]]
        for place, one in enumerate(kernel.arg_names)
        if types[one].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    warps = 1 if kernel in SINGLE else NUM_WARPS
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
    return {
        "registers": numbers["REG"],
        "stack": numbers["STACK"],
        "shared": numbers["SHARED"],
        "instructions per pixel": len(INSTRUCTION.findall(code)) / pixels_per_thread,
    }


def all_usages() -> Iterator[dict[str, Any]]:
    """Returns every kernel's name and what it takes."""
    for kernel in KERNELS:
        pixels = 1 if kernel in SINGLE else TILE_H * TILE_W / (32 * NUM_WARPS)
        yield {"kernel": kernel.__name__} | usage(compiled(kernel).asm["cubin"], pixels)


# ── on paper


def on_paper(instructions: float) -> dict[str, Any]:
    """Returns what an iteration of a pixel costs by `step`."""
    return {
        "on paper": "step",
        "bytes": BYTES,
        "instructions": round(instructions),
        "1e9 px × iterations/s by memory": round(MEMORY / BYTES / 1e9),
        "by schedulers": round(ISSUED * 32 / instructions / 1e9),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    per_pixel = {}
    for one in all_usages():
        per_pixel[one["kernel"]] = one["instructions per pixel"]
        print(json.dumps(one))
    print(json.dumps(on_paper(per_pixel["step"]), ensure_ascii=False))
