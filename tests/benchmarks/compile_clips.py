"""Compiles the kernels that make clips on Hopper GPUs, which needs no GPU.

    python tests/benchmarks/compile_clips.py

Prints one JSON object a line: the kernel and its constants, registers of a thread, bytes of its
stack (registers that were spilled) and of shared memory, and its machine instructions. Must run
where Triton's interpreter is off.
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

from vidssl.clips.gpu.triton_transforms import ROWS
from vidssl.kernels import clip_transforms

SIZE = 128  # of clips
SIDE, FRAME = {"ROWS": ROWS, "S": SIZE}, {"P": clip_transforms.PIXELS}
POINTERS = {
    "table": "*i64", "first_x": "*i32", "first_y": "*i32", "first": "*i32", "slots": "*i32",
    "frames": "*i32", "filters": "*i32",
}  # fmt: skip
FLOATS = (
    "weight_x", "weight_y", "weight", "changes", "mean", "unblurred", "scale", "shift", "shown",
    "levels",
)  # fmt: skip
# Of each kernel: how it may be launched.
WAYS: dict[str, list[tuple[dict[str, str], dict[str, Any]]]] = {
    "resize": [({"out": "*u8", "frames": "i32"}, SIDE)],
    "means": [({"x": "*u8"}, {"GREY_FIRST": g, **FRAME}) for g in (0, 1)],
    "change_colour": [({"x": "*u8", "out": "*fp32"}, {"GREY_FIRST": g, **FRAME}) for g in (0, 1)],
    "filter_side": [({"x": "*fp32", "out": "*fp32"}, {"LAST": last, **SIDE}) for last in (0, 1)],
    "look_up": [({"x": "*u8", "out": "*fp32"}, FRAME)],
}


def compiled(name: str, types: dict[str, str], constants: dict[str, Any]) -> Any:
    """Returns a kernel as Triton compiles it; buffers begin at multiples of 16 bytes."""
    kernel = getattr(clip_transforms, name)
    known = POINTERS | dict.fromkeys(FLOATS, "*fp32") | types
    signature = {
        one: "constexpr" if one in constants else known.get(one, "i32") for one in kernel.arg_names
    }
    aligned: dict[Any, Any] = {
        (place,): [["tt.divisibility", 16]]
        for place, one in enumerate(kernel.arg_names)
        if signature[one].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=HOPPER, options={"num_warps": clip_transforms.NUM_WARPS})


def all_usages() -> Iterator[dict[str, Any]]:
    """Returns every way to launch a kernel, and what it takes."""
    for name, ways in WAYS.items():
        for types, constants in ways:
            found = usage(compiled(name, types, constants).asm["cubin"], 1)
            found["instructions"] = found.pop("instructions per pixel")
            yield {"kernel": name, "reads": types.get("x", "*u8")} | constants | found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in all_usages():
        json.dump(one, sys.stdout)
        print()
