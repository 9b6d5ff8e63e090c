"""Compiles the kernels of BatchNorm and ReLU for Hopper GPUs, which needs no GPU.

    python tests/compile_norm_relu.py

Prints one JSON object a line: the kernel, the map's type, registers of a thread, bytes of its stack
(registers that were spilled) and of shared memory, and machine instructions per value of the map.
Must run where Triton's interpreter is off.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import triton
from compile_tvl1 import HOPPER, usage
from triton.compiler import ASTSource

from vidssl.backbones import norm_relu_kernels as kernels

OVER_MAPS = ("statistics", "normalise", "reduce_gradient", "input_gradient")
OVER_CHANNELS = ("finish_statistics", "finish_gradient")
MAPS = ("x", "y", "dy", "dx")
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


def all_usages() -> Iterator[dict[str, Any]]:
    """Gives every kernel's name and what it takes."""
    for kind in ("bf16", "fp32"):
        for name in OVER_MAPS + OVER_CHANNELS:
            values = kernels.TILE if name in OVER_MAPS else kernels.JOINED * kernels.JOINED_CHANNELS
            found = usage(compiled(name, kind).asm["cubin"], values / (32 * kernels.NUM_WARPS))
            found["instructions per value"] = found.pop("instructions per pixel")
            yield {"kernel": name, "maps": kind} | found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in all_usages():
        json.dump(one, sys.stdout)
        print()
