"""Clips made by kernels are those made in plain PyTorch, to rounding.

On a GPU where there is one, else on Triton's interpreter (tests/conftest.py turns it on).
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")

from interpreting import CUDA_WHERE_THERE_IS, use_the_interpreter

from vidssl.augment import (
    POLICIES,
    AugmentSpec,
    ColourDraw,
    box_blur,
    box_radius,
    box_slices,
    draw_views,
    gaussian_blur,
)
from vidssl.augment.colour import GREY_WEIGHTS
from vidssl.augment.filter_taps import blur_taps, resize_taps
from vidssl.augment.resize_weights import resize_weights_on_host
from vidssl.base.errors import SlowerWay
from vidssl.clips.batch import ClipSpec
from vidssl.clips.gpu import transform_choice as choice
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.lookup_tables import (
    normalise_line,
    only_swaps_sides,
    picture_table,
    value_table,
)
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.gpu.transform_choice import choose_transforms
from vidssl.clips.gpu.triton_transforms import TritonTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.kernels import clip_transforms
from vidssl.views import get_view

use_the_interpreter()
pytestmark = CUDA_WHERE_THERE_IS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HEIGHT, WIDTH, SAMPLES = 18, 25, 2
LAST = torch.channels_last_3d


def sampler(
    view: str, spec: AugmentSpec, shown: str = "native", blocks: int = 1, size: int = 8, frames=2
) -> ClipSampler:
    clip = ClipSpec(frames=frames, size=size, blocks=blocks)
    return ClipSampler(None, [view], clip, spec, 2, 0, {view: shown})


def drawn(of: ClipSampler, seed: int = 0) -> tuple[list[Region], list[ColourDraw] | None]:
    """Returns regions of some samples as a host would cut them, and their colour changes."""
    (name,), draw = of.views, np.random.default_rng(seed)
    view, frames = get_view(name), of.clip.frames * of.clip.blocks
    regions, colours = [], []
    for _ in range(SAMPLES):
        aspect, kind = {name: WIDTH / HEIGHT}, {name: view.kind}
        for clip in draw_views(of.augment, draw, aspect, kind, [True] * 2, frames)[name]:
            rows, columns = box_slices(clip.boxes[0], HEIGHT, WIDTH)
            shape = (max(frames - len(regions) % 2, 1), HEIGHT, WIDTH, view.channels)
            whole = torch.from_numpy(draw.integers(0, 256, shape, np.uint8)).to(DEVICE)
            if len(regions) % 3 == 0:  # each channel by itself, as flow is decoded
                whole = whole.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
            pixels = whole[:, rows, columns]
            regions.append(Region(pixels, frames - len(pixels), clip.mirrored))
            colours += [c for c in clip.colour * (of.clip.blocks if len(clip.colour) == 1 else 1)]
    changed = view.colour or of.is_picture_of_motion(name)
    return regions, colours if changed else None


def compared(of: ClipSampler, regions, colours) -> torch.Tensor:
    """Checks that both transforms make the same; returns what kernels made."""
    with choice.full_float32():
        return _compared(of, regions, colours)


def _compared(of: ClipSampler, regions, colours) -> torch.Tensor:
    (view,) = of.views
    plain, kernels = (kind(of, DEVICE) for kind in (TorchTransforms, TritonTransforms))
    want, got = (one.resize(view, regions) for one in (plain, kernels))
    assert got.shape == want.shape and got.dtype == torch.uint8
    apart = (got.int() - want.int()).abs()
    assert int(apart.max()) <= 1 and float(apart.float().mean()) < 5e-3
    shown, made = (one.present(view, want.contiguous(), colours) for one in (plain, kernels))
    torch.testing.assert_close(made, shown, rtol=1e-5, atol=3e-5)
    return made


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize(
    "policy, view, shown",
    [
        ("truthful", "rgb", "native"),
        ("truthful", "flow", "native"),
        ("truthful", "mask", "native"),
        ("coclr", "rgb", "native"),
        ("coclr", "flow", "coclr"),
        ("coclr-finetune", "rgb", "native"),
        ("dpc", "rgb", "native"),
        ("dpc-finetune", "rgb", "native"),
        ("cocon", "rgb", "native"),
        ("cocon", "flow", "cocon"),
        ("cocon", "pose", "native"),
        ("truthful", "pose", "native"),
    ],
)
def test_clips_are_those_of_plain_pytorch(policy, view, shown, blocks):
    of = sampler(view, POLICIES[policy], shown, blocks)
    made = compared(of, *drawn(of))
    channels = get_view(view).input_channels(shown)
    assert made.shape == (SAMPLES, 2 * blocks, channels, 2, 8, 8)
    if blocks == 1:  # each clip of all samples lies as a network wants it
        assert all(clip.is_contiguous(memory_format=LAST) for clip in made.unbind(1))
    else:
        assert made.flatten(0, 1).is_contiguous(memory_format=LAST)


NOTHING = {"jitter": 0.0, "blur": 0.0, "gray": 0.0}


@pytest.mark.parametrize("gray_first", [False, True])
@pytest.mark.parametrize(
    "facts",
    [
        NOTHING,
        NOTHING | {"jitter": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        NOTHING | {"jitter": 1.0, "brightness": 0.0, "saturation": 0.0, "hue": 0.0},
        NOTHING | {"jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "hue": 0.0},
        NOTHING | {"jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
        NOTHING | {"gray": 1.0, "per_frame": "gray-channel"},
        NOTHING | {"channel_shuffle": 1.0},
        {"jitter": 1.0, "gray": 0.5, "blur": 0.0, "channel_shuffle": 0.5, "per_frame": "colour"},
    ],
)
def test_each_change_of_colour(facts, gray_first):
    of = sampler("rgb", replace(POLICIES["truthful"], gray_first=gray_first, **facts))
    compared(of, *drawn(of))


@pytest.mark.parametrize("size", [5, 17])
@pytest.mark.parametrize("kind", ["gaussian", "boxes"])
def test_blurred_frames(kind, size):
    """Some clips alone, and also where a picture is smaller than the filter."""
    spec = replace(POLICIES["truthful"], jitter=0.5, blur=0.6, blur_kind=kind, blur_sigma_min=0.5)
    of = sampler("rgb", spec, size=size, frames=1)
    regions, colours = drawn(of, seed=1)
    assert {d.sigma > 0 for d in colours} == {False, True}
    compared(of, regions, colours)


def test_a_sample_of_one_clip_and_a_batch_of_one():
    """Numbers that Triton compiles as constants."""
    of = replace(sampler("rgb", POLICIES["truthful"], frames=1), clips_per_video=1)
    regions, colours = drawn(of)
    compared(of, regions[:1], colours[:1])


def test_a_view_that_kernels_cannot_show_is_shown_by_plain_pytorch(monkeypatch):
    monkeypatch.setattr("vidssl.clips.gpu.triton_transforms.value_table", lambda *told: None)
    monkeypatch.setattr("vidssl.clips.gpu.triton_transforms.picture_table", lambda *told: None)
    for view in ("rgb", "flow"):
        of = sampler(view, POLICIES["truthful"])
        compared(of, *drawn(of))


# ── what kernels are told ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("old, new", [(9, 16), (16, 16), (17, 16), (40, 16), (101, 16), (1, 4)])
@pytest.mark.parametrize("kind", ["area", "linear", "bilinear", "bicubic", "nearest"])
def test_taps_are_the_weights(kind, old, new):
    if kind == "area" and old < new:
        pytest.skip("what grows is linear")
    first, weight = resize_taps(kind, old, new)
    dense = np.zeros((new, old + len(weight)), np.float32)
    for tap, of_tap in enumerate(weight):
        dense[np.arange(new), first + tap] += of_tap
    assert not dense[:, old:].any()
    np.testing.assert_array_equal(dense[:, :old], resize_weights_on_host(kind, old, new).numpy())


@pytest.mark.parametrize("size", [4, 9, 30])
@pytest.mark.parametrize("kind", ["gaussian", "boxes"])
def test_taps_of_a_blur_do_what_the_blur_does(kind, size):
    spec = replace(POLICIES["truthful"], blur_kind=kind)
    sigmas = [0.1, 0.7, 2.0]
    first, weight = blur_taps(sigmas, spec, size)
    x = torch.rand(1, 3, 1, size, size, generator=torch.Generator().manual_seed(0))
    for number, sigma in enumerate(sigmas):
        dense = np.zeros((size, size), np.float32)
        for tap, of_tap in enumerate(weight[number]):
            dense[np.arange(size), first[number] + tap] += of_tap
        if kind == "gaussian":
            want = gaussian_blur(x.clone(), sigma, reach=6)
        else:
            want = box_blur(x.clone(), box_radius(sigma), reach=3)
        got = torch.from_numpy(dense) @ x @ torch.from_numpy(dense).T
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_grey_weights_are_those_of_the_host():
    weights = (clip_transforms.RED, clip_transforms.GREEN, clip_transforms.BLUE)
    assert tuple(weight.value for weight in weights) == GREY_WEIGHTS


def test_what_is_a_picture():
    native, flow = picture_table("rgb", "native"), picture_table("flow", "coclr")
    assert native[:, 0].tolist() == [0, 1, 2] and (native[:, 1:] == np.arange(256)).all()
    assert flow[1:, 0].tolist() == [1, 0], "green is v, blue is u"
    assert (flow[0, 1:] == 128).all() and (np.diff(flow[1:, 1:]) >= 0).all()
    assert picture_table("flow", "native") is None and picture_table("pose", "native") is None


def test_what_is_a_line_and_what_a_table():
    for shown in ("native", "coclr"):
        assert normalise_line("flow" if shown == "coclr" else "rgb", shown) is not None
        assert (value_table("flow", shown) is None) == (shown == "coclr"), "which mixes channels"
    level = torch.arange(256, dtype=torch.uint8).expand(2, 1, 1, -1)
    for shown in ("native", "cocon"):
        want = get_view("flow").present(level[None], shown)[0, :, 0, 0].numpy()
        np.testing.assert_array_equal(value_table("flow", shown), want)
    assert only_swaps_sides("rgb") and only_swaps_sides("mask")
    assert not only_swaps_sides("flow") and not only_swaps_sides("pose")


# ── which is used ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy, view", [("truthful", "rgb"), ("coclr", "flow"), ("dpc", "rgb")])
def test_disagreement_is_found_where_there_is_one(policy, view, monkeypatch):
    monkeypatch.setattr(choice, "SHAPES", ((6, 9), (14, 11), (7, 8)))
    shown = "coclr" if view == "flow" else "native"
    of = sampler(view, POLICIES[policy], shown)
    plain = TorchTransforms(of, DEVICE)
    examples = choice.make_examples(plain)
    expected = choice.transformed(plain, examples)

    made = choice.transformed(TritonTransforms(of, DEVICE), examples)
    assert choice.difference(expected, made) is None
    levels, values = ({view: made[view]._replace(**moved)} for moved in shifts(made[view]))
    assert "levels" in choice.difference(expected, levels)
    assert "values" in choice.difference(expected, values)


def shifts(made):
    return {"levels": made.levels + 1}, {"values": made.values + 0.1}


class OnThisMachine(TorchTransforms):
    """Plain PyTorch on this machine's device, whichever one it is asked for."""

    shift = 0.0

    def __init__(self, sampler, device) -> None:
        super().__init__(sampler, DEVICE)

    def present(self, view, pixels, draws):
        return super().present(view, pixels, draws) + self.shift


class Kernels(OnThisMachine):
    """Stands for kernels that work."""


class WrongKernels(OnThisMachine):
    """Stands for kernels that make something else."""

    shift = 0.1


def broken_kernels(sampler, device):
    raise RuntimeError("no ptxas")


@pytest.fixture
def chosen(monkeypatch):
    """Returns what is chosen for a GPU where transforms by kernels are made as told."""
    monkeypatch.setattr(choice, "SHAPES", ((6, 9), (14, 11), (7, 8)))
    monkeypatch.setattr(choice, "TorchTransforms", OnThisMachine)

    def choose(kernels) -> TorchTransforms:
        monkeypatch.setattr(choice, "triton_transforms", kernels)
        return choose_transforms(sampler("rgb", POLICIES["truthful"]), torch.device("cuda"))

    return choose


def test_kernels_are_used_where_they_make_the_same_clips(chosen, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(chosen(Kernels)) is Kernels
        monkeypatch.setenv("VIDSSL_KERNELS", "off")
        assert type(chosen(Kernels)) is OnThisMachine


def test_kernels_that_make_other_clips_are_not_used(chosen):
    with pytest.warns(SlowerWay, match="make clips do not work here, .* does it: rgb becomes"):
        assert type(chosen(WrongKernels)) is OnThisMachine


def test_kernels_that_do_not_compile_are_not_used(chosen):
    with pytest.warns(SlowerWay, match="RuntimeError: no ptxas"):
        assert type(chosen(broken_kernels)) is OnThisMachine


def test_on_a_cpu_kernels_are_not_tried():
    of = sampler("rgb", POLICIES["truthful"])
    assert type(choose_transforms(of, torch.device("cpu"))) is TorchTransforms
    assert type(choice.triton_transforms(of, torch.device("cpu"))) is TritonTransforms
