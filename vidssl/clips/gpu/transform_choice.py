"""Which way to make network input of regions is taken: kernels, where they prove themselves."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vidssl.augment import ColourDraw
from vidssl.base.errors import SlowerWay
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.views import get_view

SAMPLES = 2
SHAPES = ((40, 56), (300, 260), (200, 170))  # of regions: clips of usual sizes grow and shrink
DRAWS = (
    ColourDraw((3, 1, 0, 2), 1.2, 0.7, 1.3, 0.05, sigma=1.5, channels=(2, 0, 1)),
    ColourDraw((2, 0, 1, 3), 0.8, 1.4, 0.6, -0.08, gray_channel=1),
)
# Resizing may round a few values in the middle between two levels the other way.
LEVELS_APART, CLOSE = 0.03, 0.01  # share of levels that may differ by 1; of standardised values


def choose_transforms(sampler: ClipSampler, device: torch.device) -> TorchTransforms:
    """Returns kernels where a GPU has them and they give what operations give, else operations."""
    plain = TorchTransforms(sampler, device)
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return plain
    from vidssl.clips.gpu.triton_transforms import TritonTransforms

    kernels = TritonTransforms(sampler, device)
    try:
        with all_bits():
            wrong = disagreement(plain, kernels)
    except Exception as error:  # whatever a compiler or a driver may raise
        wrong = f"{type(error).__name__}: {error}"
    if wrong is None:
        return kernels
    told = "the kernels that make clips do not work here, and operations, which are slower, do it: "
    warnings.warn(SlowerWay(told + wrong), stacklevel=2)
    return plain


@contextmanager
def all_bits() -> Iterator[None]:
    """Within it products of float32 have all their bits, whatever an environment has set."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


def disagreement(one: TorchTransforms, other: TorchTransforms) -> str | None:
    """Returns where two ways differ on two samples of noise, for every view; None: nowhere."""
    sampler = one.sampler
    for view in sampler.views:
        regions, draws = _samples(sampler, view, one.device)
        pixels, again = (way.resize(view, regions).int() for way in (one, other))
        apart = (pixels - again).abs()
        if int(apart.max()) > 1 or float(apart.float().mean()) > LEVELS_APART:
            return f"{view} is resized to levels that are up to {int(apart.max())} apart"
        levels = pixels.to(torch.uint8)
        shown = [way.present(view, levels, draws) for way in (one, other)]
        if not torch.allclose(*shown, rtol=0, atol=CLOSE):
            apart = (shown[0] - shown[1]).abs().max()
            return f"{view} becomes values that are up to {float(apart):.3g} apart"
    return None


def _samples(
    sampler: ClipSampler, view: str, device: torch.device
) -> tuple[list[Region], list[ColourDraw] | None]:
    """Returns regions, of which one is mirrored and repeats a frame, and colour changes."""
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
