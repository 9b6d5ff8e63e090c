"""Counts, without a GPU, the bytes that an InfoNCE step of a backbone moves through one's memory.

    python tests/benchmarks/paper_bytes.py                     S3D, 32 clips of 32×128×128, bf16

Two ways to compute it: operation by operation; and as torch.compile fuses it for an H200. Nothing
is computed: operations get tensors without values, and of torch.compile only the part is run that
decides what becomes one kernel, for a device that is described to it. That part is private to
torch: written for 2.15.

*Bytes*: what kernels read and write, once for each tensor and pass, as if caches held nothing
between two kernels and everything within one. BatchNorm takes two passes over its map in either
direction, since nothing can be normalised before all of it has been seen. Counted are the query
encoder's forward and backward pass and the key encoder's forward pass, without heads, losses and
optimiser.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor import compile_fx, scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from vidssl.backbones import BACKBONES

sys.path.append(str(Path(__file__).parent.parent / "cuda"))
from moved_bytes import moved_by

LAST = torch.channels_last_3d
H200 = {
    "multi_processor_count": 132, "major": 9, "regs_per_multiprocessor": 65536,
    "max_threads_per_multi_processor": 2048, "max_threads_per_block": 1024, "warp_size": 32,
}  # fmt: skip
BANDWIDTH = 4.8e12  # bytes/s of an H200
CUDA = torch.device("cuda:0")
REST = "BatchNorm, ReLU, copies, casts, sums"


@contextmanager
def bf16_as_on_cuda() -> Iterator[None]:
    """Computes convolutions in bf16 and nothing else, as CUDA's autocast does.

    That of a CPU takes pooling back to float32, which no GPU does.
    """

    def convolve(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made = (x.bfloat16(), weight.bfloat16(), bias)
        return F.conv3d(*made, self.stride, self.padding, self.dilation, self.groups)

    with patch.object(nn.Conv3d, "_conv_forward", convolve):
        yield


def network(name: str) -> nn.Module:
    return BACKBONES[name](3).to(memory_format=LAST).train()


def without_values(whole: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Returns a network whose tensors have shapes alone."""
    for module in whole.modules():
        for name, p in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(mode.from_tensor(p.detach())))
        for name, b in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(b))
    return whole


def clips(samples: int, frames: int, size: int) -> Tensor:
    return torch.empty(samples, frames, size, size, 3).permute(0, 4, 1, 2, 3)


def step(query: Callable[[Tensor], Tensor], key: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.no_grad():
        key(x)
    query(x).float().mean().backward()


# ── operation by operation


def by_operations(name: str, *shape: int) -> Counter[str]:
    """Returns bytes by kind of operation."""
    mode = FakeTensorMode()
    query, key = (without_values(network(name), mode) for _ in "qk")
    with mode, bf16_as_on_cuda():
        return moved_by(lambda: step(query, key, clips(*shape)))


def normalised(name: str, *shape: int) -> int:
    """Returns the bytes of all maps that go through BatchNorm and then ReLU, together."""
    found: list[int] = []

    def note(norm: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        found.append(given[0].numel() * given[0].element_size())

    mode = FakeTensorMode()
    backbone = without_values(network(name), mode)
    with mode, bf16_as_on_cuda(), torch.no_grad():
        for part in backbone.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.register_forward_hook(note)
        backbone(clips(*shape))
    return sum(found)


# ── as torch.compile fuses


def compiled(name: str, *shape: int) -> tuple[Counter[str], int]:
    """Returns bytes by kind of kernel, and the number of kernels."""
    moved: Counter[str] = Counter()
    kernels: list[str] = []

    def backend(graph: torch.fx.GraphModule, given: Sequence[Tensor]) -> Any:
        def count(part: torch.fx.GraphModule, given: Sequence[Tensor], **told: Any) -> Any:
            for kind, size in kernels_of(copy.deepcopy(part), given, **told):
                kernels.append(kind)
                moved[kind] += size
            return nothing_computed(part)

        return compile_fx.compile_fx(graph, given, inner_compile=count)

    torch.compiler.reset()
    with bf16_as_on_cuda(), an_h200():
        query, key = (torch.compile(network(name), backend=backend, dynamic=False) for _ in "qk")
        step(query, key, clips(*shape))
    return moved, len(kernels)


@contextmanager
def an_h200() -> Iterator[None]:
    """Lets torch's scheduler believe that there is one."""
    found = DeviceProperties(type="cuda", index=0, cc=90, **H200)
    told = SimpleNamespace(minor=0, name="NVIDIA H200", **H200)
    with (
        patch.object(DeviceProperties, "create", lambda device: found),
        patch.object(torch.cuda, "get_device_properties", lambda device=None: told),
        patch.object(torch.cuda, "get_device_capability", lambda device=None: (9, 0)),
        patch.object(torch.cuda, "current_device", lambda: 0),
        patch.object(scheduler, "has_triton", lambda: True),
    ):
        yield


def kernels_of(
    graph: torch.fx.GraphModule,
    given: Sequence[Any],
    is_backward: bool = False,
    is_inference: bool = False,
    **told: Any,
) -> Iterator[tuple[str, int]]:
    """Returns what each kernel does that a graph becomes on CUDA, and the bytes it moves."""
    for node in graph.graph.nodes:
        if node.kwargs.get("device") == torch.device("cpu"):
            node.kwargs = dict(node.kwargs, device=CUDA)
    without_values = FakeTensorMode()
    inputs = [_there(one, without_values) for one in given]
    FakeTensorProp(graph, mode=without_values).propagate_dont_convert_inputs(*inputs)
    with V.set_fake_mode(without_values):
        compile_fx.record_original_output_strides(graph)
        compile_fx._recursive_post_grad_passes(graph, is_inference=is_inference)
        lowered = GraphLowering(
            graph, example_inputs=inputs, is_backward=is_backward, is_inference=is_inference
        )
        with V.set_debug_handler(DebugContext()), V.set_graph_handler(lowered):
            lowered.run(*inputs)
            lowered._update_scheduler()
            for node in lowered.scheduler.nodes:
                if size := node.get_read_write_buffers_sizes():
                    yield _kind_of(node), size


def _there(given: Any, mode: FakeTensorMode) -> Any:
    if not isinstance(given, Tensor):
        return given
    with mode:
        return torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device=CUDA)


def _kind_of(node: Any) -> str:
    """Names a kernel by what it is made of."""
    origins = {str(origin) for part in node.get_nodes() for origin in part.node.get_origins()}
    if isinstance(node, scheduler.ExternKernelSchedulerNode):
        return "pooling" if "pool" in str(node.node.op_overload) else "convolutions"
    # A pooling's own kernel; in that of a BatchNorm, what stood before it was computed again.
    own = "pool" in str(node.get_first_name()) or any("pool" in name for name in origins)
    return "pooling" if own and not any("sum" in name for name in origins) else REST


def nothing_computed(graph: torch.fx.GraphModule) -> Callable[[list[Any]], list[Any]]:
    """Returns a stand-in for a graph whose results have its shapes and no values."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    made = [one.meta["val"] if isinstance(one, torch.fx.Node) else one for one in output.args[0]]

    def run(given: list[Any]) -> list[Any]:
        given.clear()
        return [
            torch.empty_strided(tuple(one.shape), one.stride(), dtype=one.dtype)
            if isinstance(one, Tensor)
            else one
            for one in made
        ]

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


# ── writing


def markdown(name: str, samples: int, frames: int, size: int) -> str:
    """Returns a table of both ways."""
    shape = (samples, frames, size)
    single, maps = by_operations(name, *shape), normalised(name, *shape)
    whole, kernels = compiled(name, *shape)
    lines = [
        f"{name}, {samples} clips of {frames}×{size}×{size}; maps that BatchNorm and ReLU pass "
        f"over: {maps / samples / 1e6:.1f} MB a sample",
        "",
        "| way | MB a sample | of which | at 4.8 TB/s, samples/s |",
        "|---|---|---|---|",
        _row("operation by operation", single, samples),
        _row(f"torch.compile: {kernels} kernels", whole, samples),
    ]
    return "\n".join(lines)


def _row(way: str, moved: Counter[str], samples: int) -> str:
    total = moved.total() / samples
    parts = ", ".join(f"{kind} {b / samples / 1e6:.0f}" for kind, b in moved.most_common())
    return f"| {way} | {total / 1e6:,.0f} | {parts} | {BANDWIDTH / total:,.0f} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="s3d")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    a = parser.parse_args(words)
    print(markdown(a.backbone, a.samples, a.frames, a.size))


if __name__ == "__main__":
    main()
