"""Compiles the kernels of BatchNorm and ReLU for Hopper GPUs, which needs no GPU.

    python tests/compile_norm_relu.py

Prints one JSON object a line: the kernel, the map's type, registers of a thread, bytes of its stack
(registers that were spilled) and of shared memory, and machine instructions for each value of the
map, without what is done once. *Allowed*: as many as an H200 issues while its memory delivers the
value: 528 schedulers of 32 lanes at 1.98 GHz, 4.8 TB/s. Must run where Triton's interpreter is off.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import triton
from compile_tvl1 import DISASSEMBLER, HOPPER, usage
from triton.compiler import ASTSource

from vidssl.backbones import norm_relu_kernels as kernels

# How many maps a kernel passes over, reading and writing.
PASSES = {"statistics": 1, "normalise": 2, "reduce_gradient": 2, "input_gradient": 3}
OVER_MAPS = tuple(PASSES)
OVER_CHANNELS = ("finish_statistics", "finish_gradient")
MAPS = ("x", "y", "dy", "dx")
BYTES = {"bf16": 2, "fp32": 4}
ISSUED, DELIVERED = 528 * 32 * 1.98e9, 4.8e12  # instructions and bytes a second
COUNTS = ("places", "channels", "chunks", "per_chunk", "spacing", "dy_spacing")


def compiled(name: str, kind: str) -> Any:
    """Gives a kernel as Triton compiles it; strides are of whole maps, multiples of 16."""
    kernel = getattr(kernels, name)
    tiles = {"R": kernels.TILE // kernels.MOST_CHANNELS, "C": kernels.MOST_CHANNELS}
    joined = {"K": kernels.JOINED, "C": kernels.JOINED_CHANNELS}
    constants = tiles if name in OVER_MAPS else joined
    types, aligned = {}, {}
    for place, one in enumerate(kernel.arg_names):
        if one in constants:
            types[one] = "constexpr"
        elif one in COUNTS:
            types[one] = "i32"
        elif one in ("momentum", "eps"):
            types[one] = "fp32"
        else:
            types[one] = f"*{kind}" if one in MAPS else "*fp32"
        if one in ("channels", "spacing", "dy_spacing") or types[one].startswith("*"):
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=HOPPER, options={"num_warps": kernels.NUM_WARPS})


def instructions(cubin: bytes) -> int:
    """Gives how many instructions a kernel has in its loop, or in all where it has none."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [DISASSEMBLER, "-sass", file.name]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.MULTILINE)
    places = [int(place, 16) for place, _ in lines]
    loops = [
        sum(int(back[1], 16) <= one <= place for one in places)
        for place, (_, text) in zip(places, lines, strict=True)
        if (back := re.search(r"BRA\b.*(0x[0-9a-f]+)", text)) and int(back[1], 16) < place
    ]
    return max(loops, default=len(lines))


def all_usages() -> Iterator[dict[str, Any]]:
    """Gives every kernel's name and what it takes."""
    for kind in BYTES:
        for name in OVER_MAPS + OVER_CHANNELS:
            cubin = compiled(name, kind).asm["cubin"]
            found = usage(cubin, 1)
            del found["instructions per pixel"]
            if name in OVER_MAPS:
                taken = instructions(cubin) * 32 * kernels.NUM_WARPS / kernels.TILE
                allowed = ISSUED / DELIVERED * PASSES[name] * BYTES[kind]
                found |= {"instructions": taken, "allowed": round(allowed, 1)}
            yield {"kernel": name, "maps": kind} | found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in all_usages():
        json.dump(one, sys.stdout)
        print()
