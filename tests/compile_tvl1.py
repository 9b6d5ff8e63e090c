"""Compiles TV-L1's kernels for Hopper GPUs, which needs no GPU, and prints what each one takes.

    python tests/compile_tvl1.py

One JSON object a line: the kernel, registers of a thread, bytes of its stack (registers that were
spilled), of shared memory, and machine instructions per pixel (of `iterate`: per pixel and
iteration). Then, for both ways of iterating, and for launches of several lengths, what an iteration
of a pixel of 340 × 256 costs on paper, all five scales together, if iteration stops after so many:
bytes from and to the device's memory and instructions, with what tiles do twice and what launches
do in vain; and how many pixels × iterations a second an H200's memory and its schedulers would
allow. Must run where Triton's interpreter is off.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vidssl.views.tvl1 import kernels, tile_kernel
from vidssl.views.tvl1.kernels import NUM_WARPS, TILE_H, TILE_W
from vidssl.views.tvl1.parameters import Parameters

HOPPER = GPUTarget("cuda", 90, 32)
DISASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
PLANE = 176 * TILE_H * TILE_W  # of 340 × 256
FLOATS = ("u", "p", "data", "slope", "pictures", "partial", "tolerance")
SCALARS = {"data_step", "dual_step", "coupling", "enlargement"}
POINTERS = {name: "*fp32" for name in FLOATS} | {"state": "*i32", "shapes": "*i32", "work": "*i64"}
CONSTANTS = {"plane": PLANE, "S": 5, "H": TILE_H, "W": TILE_W}
TILES = ("iterate", "judge_tiles")
OF_TILES = CONSTANTS | {
    "K": tile_kernel.ITERATIONS, "W": tile_kernel.TILE_W, "R": tile_kernel.TILE_ROWS
}  # fmt: skip
SINGLE = ("plan", "judge", *TILES)  # one warp for each slot or tile

# An H200: bytes a second, and instructions of warps: 132 × 4 schedulers at 1.98 GHz.
MEMORY, ISSUED = 4.8e12, 132 * 4 * 1.98e9
STOPS = (5, 15, 30, 60)  # iterations after which a warp may stop
LAUNCHES = (2, 4, 6, 8)  # iterations that a launch might make
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", re.MULTILINE)


def compiled(name: str) -> Any:
    """Gives a kernel as Triton compiles it; arguments are of the types that launches give."""
    kernel, values = getattr(kernels, name, None), CONSTANTS
    if name in TILES:
        kernel, values = getattr(tile_kernel, name), OF_TILES
    constants = {one: values[one] for one in kernel.arg_names if one in values}
    types = {
        one: "constexpr"
        if one in values
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
    warps = 1 if name in SINGLE else NUM_WARPS
    return triton.compile(source, target=HOPPER, options={"num_warps": warps})


def usage(cubin: bytes, pixels_per_thread: float, of_loop: bool = False) -> dict[str, float]:
    """Reads what the assembler gave a kernel; of_loop: instructions of its longest loop alone."""
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
    instructions = longest_loop(code) if of_loop else len(INSTRUCTION.findall(code))
    return {
        "registers": numbers["REG"],
        "stack": numbers["STACK"],
        "shared": numbers["SHARED"],
        "instructions per pixel": instructions / pixels_per_thread,
    }


def longest_loop(code: str) -> int:
    """Gives the instructions between the branch backward that goes farthest and its target."""
    found = [(int(at, 16), words) for at, words in INSTRUCTION.findall(code)]
    longest = 0
    for at, words in found:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", words)
        if target and int(target[1], 16) < at:
            first = int(target[1], 16)
            longest = max(longest, sum(first <= place <= at for place, _ in found))
    return longest


def all_usages() -> Iterator[dict[str, Any]]:
    """Gives every kernel's name and what it takes."""
    for name in ("plan", "enter", "linearise", "smooth", "step", "judge", *TILES):
        pixels = 1 if name in SINGLE else TILE_H * TILE_W / (32 * NUM_WARPS)
        if name == "iterate":
            pixels = tile_kernel.ITERATIONS * tile_kernel.TILE_W / 32
        cubin = compiled(name).asm["cubin"]
        yield {"kernel": name} | usage(cubin, pixels, of_loop=name == "iterate")


# ── on paper


def launches(iterations: int, most: int) -> Iterator[int]:
    """Gives the iterations of each launch of a warp that stops after so many in all."""
    between = Parameters().inner_iterations
    for begun in range(0, iterations, between):
        here = min(iterations - begun, between)
        full, rest = divmod(here, most)
        yield from [most] * full
        reached = min(most, between - full * most)
        if 0 < rest < reached:
            yield reached  # it goes too far, and is made again
        if rest:
            yield rest


def gone_through(height: int, width: int, iterations: int, most: int) -> int:
    """Gives the pixels that a launch reads of a picture, those that several tiles read included."""
    columns, rows = tile_kernel.TILE_W, tile_kernel.TILE_ROWS
    across = max(-(-(width - 2 * most) // (columns - 2 * most)), 1)
    read = sum(
        min(first + rows, height) + iterations - max(first - iterations, 0)
        for first in range(0, height, rows)
    )
    return across * columns * read


def on_paper(per_pixel: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Gives what an iteration of a pixel costs.

    Args:
        per_pixel: instructions, of `step` and of `iterate`; taken for launches of any length.
    """
    yield {"on paper": "step"} | allowed(60, per_pixel["step"])
    for most, stop in product(LAUNCHES, STOPS):
        moved, made = of_tiles(most, stop)
        found = {"on paper": "iterate", "iterations a launch": most, "stop after": stop}
        yield found | allowed(moved, per_pixel["iterate"] * made)


def of_tiles(most: int, stop: int) -> tuple[float, float]:
    """Gives bytes and iterations made, per iteration of a pixel that counts.

    Args:
        most: iterations of a launch, at most.
        stop: iterations of a warp.
    """
    sizes = Parameters().scales(256, 340)
    pixels = sum(height * width for height, width in sizes)
    moved = made = 0
    for count in launches(stop, most):
        read = sum(gone_through(*size, count, most) for size in sizes)
        moved += 4 * (9 * read + 6 * pixels)
        made += read * count
    return moved / (pixels * stop), made / (pixels * stop)


def allowed(moved: float, instructions: float) -> dict[str, float]:
    return {
        "bytes": round(moved, 1),
        "instructions": round(instructions),
        "1e9 px × iterations/s by memory": round(MEMORY / moved / 1e9),
        "by schedulers": round(ISSUED * 32 / instructions / 1e9),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    per_pixel = {}
    for one in all_usages():
        per_pixel[one["kernel"]] = one["instructions per pixel"]
        print(json.dumps(one))
    for one in on_paper(per_pixel):
        print(json.dumps(one, ensure_ascii=False))
