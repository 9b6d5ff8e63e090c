"""Counts, without a GPU, what making network input of regions costs one: bytes, launches, waits.

    python tests/benchmarks/paper_batches.py [--samples 16]

Two clips of 32×128×128 a sample, out of frames of 171×128 and 340×256, both ways: operation by
operation, and by the kernels of vidssl/kernels/clip_transforms.py. Nothing is computed: operations
get tensors without values, and kernels are noted instead of started. *Bytes*: what is read and
written, once for each tensor and pass, as if caches held nothing between two kernels and everything
within one; of frames that are sent to the device, not the sending. *Launches*: of kernels and
copies, that of the frames left out. *Waits*: uploads from memory that copies may not be made from,
for which the host waits until the stream has done all before. Prints the Markdown table of
docs/benchmarks_on_paper.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vidssl.augment import POLICIES, ColourDraw, box_slices, draw_views
from vidssl.augment import resize_weights as resizing
from vidssl.clips.batch import ClipSpec
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.gpu.triton_transforms import TritonTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.kernels import clip_transforms
from vidssl.views import get_view

sys.path.append(str(Path(__file__).parent.parent / "cuda"))
from moved_bytes import moved_by

SIZES = ((171, 128), (340, 256))  # width, height of stored frames
CLIP = ClipSpec(frames=32, size=128)
VIEWS = (("truthful", "rgb", "native"), ("truthful", "flow", "native"),
         ("coclr", "rgb", "native"), ("coclr", "flow", "coclr"))  # fmt: skip
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
NO_WORK = ("prim.device", "empty", "lift_fresh", "detach")
Found = tuple[float, float, float | None]  # a sample's bytes, launches and waits


def drawn(
    of: ClipSampler, samples: int, width: int, height: int, device: torch.device
) -> tuple[list[Region], list[ColourDraw] | None]:
    """Returns regions without values as they are drawn for some samples, and colour changes."""
    (name,), draw = of.views, np.random.default_rng(0)
    view, regions, colours = get_view(name), list[Region](), list[ColourDraw]()
    for _ in range(samples):
        draws = draw_views(
            of.augment, draw, {name: width / height}, {name: view.kind}, [True] * 2, CLIP.frames
        )
        for clip in draws[name]:
            rows, columns = box_slices(clip.boxes[0], height, width)
            shape = (CLIP.frames, *(len(range(*s.indices(n))) for s, n in
                                    ((rows, height), (columns, width))), view.channels)  # fmt: skip
            regions.append(
                Region(torch.empty(shape, dtype=torch.uint8, device=device), 0, clip.mirrored)
            )
            colours += clip.colour
    return regions, colours if view.colour or of.is_picture_of_motion(name) else None


# ── operation by operation


class Operations(TorchDispatchMode):
    """Counts operations that start a kernel or a copy, and uploads that are waited for."""

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self.launches = self.waits = 0
        self.least = least  # values that an operation makes, to be counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        works = not func.is_view and not any(part in func.name() for part in NO_WORK)
        if works and isinstance(made, torch.Tensor) and made.numel() >= self.least:
            self.launches += 1
        if "_to_copy" in func.name():
            self.waits += args[0].device.type == "cpu" and made.device.type == "cuda"
        return made


def by_operations(of: ClipSampler, samples: int, width: int, height: int) -> Found:
    """Weights that are kept from batch to batch are taken to be there."""
    (view,) = of.views

    def kept(kind: str, old: int, new: int, device: torch.device) -> torch.Tensor:
        return torch.empty(new, old, device=device)

    with FakeTensorMode(allow_non_fake_inputs=True), patch.object(resizing, "resize_weights", kept):
        regions, colours = drawn(of, samples, width, height, CUDA)
        way = TorchTransforms(of, CUDA)
        with Operations() as seen:
            moved = moved_by(lambda: way(view, regions, colours))
    return sum(moved.values()) / samples, seen.launches / samples, seen.waits / samples


# ── by kernels


class Noted:
    """Stands for a kernel: notes what it would read and write."""

    def __init__(self, moved: list[int], size: Callable[..., int]) -> None:
        self.moved, self.size = moved, size

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def start(*told: Any, **how: Any) -> None:
            self.moved.append(self.size(*told))

        return start


@contextmanager
def kernels_noted(regions: Sequence[Region]) -> Iterator[list[int]]:
    """Returns a list of the bytes that each kernel moves."""

    def of(*tensors: torch.Tensor) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    made: list[int] = []  # by resizing, one side after the other where that rounds between

    def resized(*told: Any) -> int:
        given = made[-1] if made else of(*(region.pixels for region in regions))
        made.append(of(told[5]))
        return given + made[-1]

    def meant(x: torch.Tensor, levels: torch.Tensor, changes: torch.Tensor, *rest: Any) -> int:
        column = clip_transforms.CONTRAST_PLACE.value
        share = (changes[:, column] < clip_transforms.NOWHERE.value).float().mean()
        return int(of(x) * share)

    def changed(x: torch.Tensor, *rest: Any) -> int:
        return of(x) + 4 * 3 * x.numel() // x.shape[1]

    def looked_up(x: torch.Tensor, *rest: Any) -> int:
        return of(x) + 4 * x.numel()

    def filtered(*told: Any) -> int:
        return 2 * 4 * 3 * len(told[1]) * CLIP.size**2

    moved: list[int] = []
    sizes = {
        "resize": resized, "means": meant, "change_colour": changed, "look_up": looked_up,
        "filter_side": filtered,
    }  # fmt: skip
    noted = {name: Noted(moved, size) for name, size in sizes.items()}
    with patch.multiple(clip_transforms, **noted):
        yield moved


def of_kernels(of: ClipSampler, samples: int, width: int, height: int) -> Found:
    """Counts what kernels move. Plain PyTorch's part, such as mirroring flow, is counted as well.

    Waits cannot be seen without a device: all tables go by way of `_upload`, from pinned memory.
    """
    (view,) = of.views
    regions, colours = drawn(of, samples, width, height, CPU)
    way, uploads = TritonTransforms(of, CPU), list[np.ndarray]()
    to_device = way._upload

    def upload(table: np.ndarray) -> torch.Tensor:
        uploads.append(table)
        return to_device(table)

    # What is smaller than a clip is made on the host, where the device is not a CPU.
    one_clip = CLIP.frames * CLIP.size**2
    with (
        patch.object(way, "_upload", upload),
        kernels_noted(regions) as moved,
        Operations(one_clip) as seen,
    ):
        rest = moved_by(lambda: way(view, regions, colours))
    launches = len(moved) + len(uploads) + seen.launches
    return (sum(moved) + sum(rest.values())) / samples, launches / samples, None


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=16)
    samples = parser.parse_args(words).samples
    print("| frames | augmentation | view | way | MB a sample | launches a sample | waits |")
    print("|---|---|---|---|---|---|---|")
    for width, height in SIZES:
        for policy, view, shown in VIEWS:
            told = (CLIP, POLICIES[policy], 2, 0, {view: shown})
            of = ClipSampler(None, [view], *told)  # type: ignore[arg-type]
            for name, count in (("operations", by_operations), ("**kernels**", of_kernels)):
                moved, launches, waits = count(of, samples, width, height)
                waited = "–" if waits is None else f"{waits:.1f}"
                print(
                    f"| {width}×{height} | {policy} | {view} | {name} | {moved / 1e6:,.0f} | "
                    f"{launches:.1f} | {waited} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
