"""Chooses what makes network input of regions on a device: Triton kernels, or plain PyTorch.

The two are compared on noise before the first batch (:mod:`vidssl.kernels.start_up_check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from vidssl.augment import ColourDraw
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.kernels.start_up_check import kernels_work
from vidssl.views import get_view

SAMPLES = 2
SHAPES = ((40, 56), (300, 260), (200, 170))  # of regions: clips of usual sizes grow and shrink
DRAWS = (
    ColourDraw((3, 1, 0, 2), 1.2, 0.7, 1.3, 0.05, sigma=1.5, channels=(2, 0, 1)),
    ColourDraw((2, 0, 1, 3), 0.8, 1.4, 0.6, -0.08, gray_channel=1),
)
# What is tolerated. Resizing may round a value halfway between two levels the other way.
MOST_LEVELS_APART = 1
MEAN_LEVELS_APART = 0.03
MOST_VALUES_APART = 0.01  # of standardised values


class Example(NamedTuple):
    """The input of one comparison: regions of a view, and the clips they become.

    Attributes:
        regions: of SAMPLES samples.
        draws: colour changes; None where the view's colours do not change.
        levels: the regions as clips, uint8 [M, C, T, S, S].
    """

    regions: list[Region]
    draws: list[ColourDraw] | None
    levels: Tensor


class Made(NamedTuple):
    """What transforms make of an example: levels [M, C, T, S, S], values [B, N, C, T, S, S]."""

    levels: Tensor
    values: Tensor


def choose_transforms(sampler: ClipSampler, device: torch.device) -> TorchTransforms:
    """Returns kernels where a GPU has them and they work, else plain PyTorch.

    Raises:
        UsageError: as of :func:`vidssl.kernels.switch.kernels_are_on`.
    """
    plain = TorchTransforms(sampler, device)
    if device.type != "cuda":
        return plain
    examples = make_examples(plain)
    if kernels_work(
        "the kernels that make clips",
        lambda: transformed(plain, examples),
        lambda: transformed(triton_transforms(sampler, device), examples),
        difference,
    ):
        return triton_transforms(sampler, device)
    return plain


def triton_transforms(sampler: ClipSampler, device: torch.device) -> TorchTransforms:
    """Returns the transforms by kernels, which import Triton."""
    from vidssl.clips.gpu.triton_transforms import TritonTransforms

    return TritonTransforms(sampler, device)


@contextmanager
def full_float32() -> Iterator[None]:
    """Within it products of float32 are exact to float32, even where TF32 is switched on."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


def transformed(transforms: TorchTransforms, examples: Mapping[str, Example]) -> dict[str, Made]:
    """Returns by view what transforms make of the examples."""
    with full_float32():
        return {
            view: Made(
                transforms.resize(view, one.regions),
                transforms.present(view, one.levels, one.draws),
            )
            for view, one in examples.items()
        }


def difference(expected: Mapping[str, Made], made: Mapping[str, Made]) -> str | None:
    """Returns in which view two results differ by more than is tolerated; None: in none."""
    for view, one in expected.items():
        apart = (one.levels.int() - made[view].levels.int()).abs()
        most = int(apart.max())
        if most > MOST_LEVELS_APART or float(apart.float().mean()) > MEAN_LEVELS_APART:
            return f"{view} is resized to levels that are up to {most} apart"
        if not torch.allclose(one.values, made[view].values, rtol=0, atol=MOST_VALUES_APART):
            most_apart = float((one.values - made[view].values).abs().max())
            return f"{view} becomes values that are up to {most_apart:.3g} apart"
    return None


def make_examples(plain: TorchTransforms) -> dict[str, Example]:
    """Returns an example for every view; of its regions one is mirrored and repeats a frame."""
    examples = {}
    for view in plain.sampler.views:
        regions, draws = _noise(plain.sampler, view, plain.device)
        with full_float32():
            examples[view] = Example(regions, draws, plain.resize(view, regions))
    return examples


def _noise(
    sampler: ClipSampler, view: str, device: torch.device
) -> tuple[list[Region], list[ColourDraw] | None]:
    """Returns regions of noise, and colour changes."""
    clip, channels = sampler.clip, get_view(view).channels
    count = SAMPLES * sampler.clips_of(view)
    draw = torch.Generator().manual_seed(0)
    frames = clip.frames * clip.blocks
    regions = []
    for number in range(count):
        first = int(frames > 1 and number == 0)
        shape = (frames - first, *SHAPES[number % len(SHAPES)], channels)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw).to(device)
        regions.append(Region(pixels, first, mirrored=number == 0))
    if not (get_view(view).colour or sampler.is_picture_of_motion(view)):
        return regions, None
    each = clip.frames if sampler.augment.per_frame != "nothing" else 1
    blocks = count * clip.blocks
    return regions, [DRAWS[number % len(DRAWS)] for number in range(blocks) for _ in range(each)]
