"""Policies of augmentation: what is drawn, by statistics; what is done, against PIL on frames.

Bounds on shares are four standard errors of a binomial share, for a seed fixed beforehand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from cli_workspace import vidssl
from PIL import Image, ImageFilter
from small_workspace import annotate, make_pack

from vidssl.augment import (
    POLICIES,
    WHOLE_FRAME,
    AugmentSpec,
    Box,
    ClipDraw,
    ClipTimes,
    ColourDraw,
    apply_colour,
    box_blur,
    box_radius,
    crop,
    crop_resize,
    draw_box,
    draw_clip,
    draw_clip_times,
    draw_views,
    get_policy,
)
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader
from vidssl.clips.sampler import HostSample
from vidssl.recipes.recipe import load_recipe, recipe_card
from vidssl.recipes.recipe_file import recipe_names
from vidssl.views import get_view
from vidssl.workspace.checkpoints import checkpoint_encoder
from vidssl.workspace.workspace import Workspace

FRAMES = 8  # of a drawn clip
ASPECT = 320 / 240


def assert_share(hits: list[bool], wanted: float) -> None:
    error = math.sqrt(wanted * (1 - wanted) / len(hits))
    assert abs(np.mean(hits) - wanted) <= 4 * error, (np.mean(hits), wanted, error)


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Every tenth of the range is met as often, and both ends are nearly reached."""
    counts, _ = np.histogram(values, bins=10, range=(low, high))
    assert counts.sum() == len(values), "a value lies outside the range"
    for count in counts:
        assert_share([True] * count + [False] * (len(values) - count), 0.1)
    assert min(values) < low + 0.01 * (high - low) and max(values) > high - 0.01 * (high - low)


# ── truthful ─────────────────────────────────────────────────────────────────────────────────


def digest_of_draws(spec: AugmentSpec) -> str:
    draw = np.random.default_rng(7)
    rows = []
    for aspect in (4 / 3, 1.0, 0.75, 3.0):
        for _ in range(500):
            clip = draw_clip(spec, draw, aspect)
            (box,), (c,) = clip.boxes, clip.colour
            rows.append([
                *(box.left, box.top, box.width, box.height, clip.mirrored, list(c.order)),
                *(c.brightness, c.contrast, c.saturation, c.hue, c.gray_channel, c.sigma),
                list(c.channels),
            ])  # fmt: skip
    rounded = [[round(v, 12) if isinstance(v, float) else v for v in row] for row in rows]
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [("paper", "2e83fe74c49cc0ba"), ("cpu", "0fd703dc2650d624"), ("demo", "0fd703dc2650d624")],
)
def test_what_truthful_draws_for_a_seed_never_changes(recipe, digest):
    """Results in docs/results.md were reached with these draws."""
    spec = load_recipe(recipe, "infonce", "rgb").augment
    assert spec.policy == "truthful"
    assert digest_of_draws(spec) == digest


def test_facts_that_came_later_do_not_change_the_identity_of_truthful_runs():
    assert list(AugmentSpec(flip=0.25).as_dict()) == [
        *("crop_area_min", "crop_area_max", "crop_ratio_min", "crop_ratio_max", "flip", "jitter"),
        *("brightness", "contrast", "saturation", "hue", "gray", "blur", "blur_sigma_min"),
        *("blur_sigma_max", "channel_shuffle"),
    ]
    told = POLICIES["coclr"].as_dict()
    assert told["policy"] == "coclr" and told["one_clip"] == 0.5
    assert AugmentSpec(**told) == POLICIES["coclr"]


# ── coclr: what is drawn ─────────────────────────────────────────────────────────────────────


def drawn(
    policy: str, count: int, views: tuple[str, ...] = ("rgb",), clips: int = 2
) -> list[tuple[ClipTimes, dict[str, list[ClipDraw]]]]:
    spec, draw = POLICIES[policy], np.random.default_rng(3)
    samples = []
    for _ in range(count):
        moments = draw_clip_times(spec, draw, clips)
        aspects = dict.fromkeys(views, ASPECT)
        kinds = {view: get_view(view).kind for view in views}
        samples.append((moments, draw_views(spec, draw, aspects, kinds, moments.strong, FRAMES)))
    return samples


@pytest.fixture(scope="module")
def coclr():
    return drawn("coclr", 8000)


@pytest.fixture(scope="module")
def strong(coclr):
    """The draws of strong clips."""
    return [
        clip
        for moments, views in coclr
        for clip, strong in zip(views["rgb"], moments.strong, strict=True)
        if strong
    ]


def test_half_of_the_samples_are_one_clip_seen_twice(coclr):
    one = [moments for moments, _ in coclr if moments.one]
    assert_share([moments.one for moments, _ in coclr], 0.5)
    assert all(sum(moments.strong) == 1 for moments in one), "one strong, the other weak"
    assert_share([moments.strong[0] for moments in one], 0.5)


def test_in_the_other_half_each_clip_is_strong_by_itself(coclr):
    two = [moments.strong for moments, _ in coclr if not moments.one]
    for clip in (0, 1):
        assert_share([strong[clip] for strong in two], 0.3)
    assert_share([all(strong) for strong in two], 0.09)
    assert_share([not any(strong) for strong in two], 0.49)


def test_a_weak_clip_is_only_cropped_and_mirrored(coclr):
    weak = [
        clip
        for moments, views in coclr
        for clip, strong in zip(views["rgb"], moments.strong, strict=True)
        if not strong
    ]
    assert all(set(clip.colour) == {ColourDraw()} for clip in weak)
    assert_share([clip.mirrored for clip in weak], 0.5)
    assert len({clip.boxes for clip in weak if clip.boxes != (WHOLE_FRAME,)}) > 0.5 * len(weak)


def test_a_strong_clip_has_the_published_chances_and_ranges(strong):
    first = [clip.colour[0] for clip in strong]
    jittered = [
        c for c in first if c != replace(ColourDraw(), gray_channel=c.gray_channel, sigma=c.sigma)
    ]
    assert_share([True] * len(jittered) + [False] * (len(first) - len(jittered)), 0.8)
    assert_share([c.gray_channel >= 0 for c in first], 0.2)
    assert_share([c.sigma > 0 for c in first], 0.5)
    assert_share([clip.mirrored for clip in strong], 0.5)
    for name in ("brightness", "contrast", "saturation"):
        assert_uniform([getattr(c, name) for c in jittered], 0.6, 1.4)
    assert_uniform([c.hue for c in jittered], -0.1, 0.1)
    assert_uniform([c.sigma for c in first if c.sigma > 0], 0.1, 2.0)
    orders = Counter(c.order for c in jittered)
    assert len(orders) == 24
    for count in orders.values():
        assert_share([True] * count + [False] * (len(jittered) - count), 1 / 24)


def test_chances_of_a_strong_clip_are_independent(strong):
    first = [clip.colour[0] for clip in strong]
    assert_share([c.gray_channel >= 0 and c.sigma > 0 for c in first], 0.2 * 0.5)
    assert_share([c.brightness != 1 and c.sigma > 0 for c in first], 0.8 * 0.5)
    assert_share([clip.mirrored and clip.colour[0].sigma > 0 for clip in strong], 0.25)


def test_all_but_the_grey_channel_holds_for_the_whole_clip(strong):
    assert all(len(clip.colour) == FRAMES for clip in strong)
    for clip in strong:
        assert len({replace(c, gray_channel=-1) for c in clip.colour}) == 1
        assert len({c.gray_channel < 0 for c in clip.colour}) == 1


def test_the_grey_channel_is_drawn_for_every_frame(strong):
    gray = [clip.colour for clip in strong if clip.colour[0].gray_channel >= 0]
    channels = Counter(c.gray_channel for colour in gray for c in colour)
    total = sum(channels.values())
    for channel in range(3):
        assert_share([True] * channels[channel] + [False] * (total - channels[channel]), 1 / 3)
    repeats = [a.gray_channel == b.gray_channel for c in gray for a, b in pairwise(c)]
    assert_share(repeats, 1 / 3)


def published_box(draw: np.random.Generator, width: int, height: int) -> Box:
    """A slow twin in pixels: one attempt at a crop, else the whole frame."""
    area = draw.uniform(0.2, 1) * width * height
    ratio = draw.uniform(3 / 4, 4 / 3)
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if draw.random() < 0.5:
        w, h = h, w
    if w > width or h > height:
        return WHOLE_FRAME
    x, y = draw.integers(0, width - w + 1), draw.integers(0, height - h + 1)
    return Box(x / width, y / height, w / width, h / height)


@pytest.mark.parametrize(("width", "height"), [(3200, 2400), (2400, 2400), (1500, 4500)])
def test_boxes_are_distributed_as_the_published_ones(width, height):
    """In frames of many pixels, so that the twin's rounding does not show."""
    spec, count = POLICIES["coclr"], 6000
    one, other = np.random.default_rng(0), np.random.default_rng(1)
    ours = [draw_box(spec, one, width / height) for _ in range(count)]
    theirs = [published_box(other, width, height) for _ in range(count)]
    whole = np.mean([box == WHOLE_FRAME for box in theirs])
    assert_share([box == WHOLE_FRAME for box in ours], whole)
    for part in ("left", "top", "width", "height"):
        a = np.sort([getattr(box, part) for box in ours if box != WHOLE_FRAME])
        b = np.sort([getattr(box, part) for box in theirs if box != WHOLE_FRAME])
        # Kolmogorov and Smirnov's distance, and its bound at 1 in 10,000.
        grid = np.concatenate([a, b])
        distance = np.abs(
            np.searchsorted(a, grid, "right") / len(a) - np.searchsorted(b, grid, "right") / len(b)
        ).max()
        assert distance < math.sqrt(-math.log(1e-4 / 2) / 2 * (1 / len(a) + 1 / len(b)))


def test_ratio_is_drawn_evenly_and_turned_over_at_evens():
    draw = np.random.default_rng(5)
    boxes = [draw_box(POLICIES["coclr"], draw, 1.0) for _ in range(6000)]
    ratios = [b.width / b.height for b in boxes if b != WHOLE_FRAME and b.width * b.height < 0.5]
    assert 3 / 4 <= min(ratios) < 0.755 and 1.325 < max(ratios) <= 4 / 3
    # Half are uniform in [3/4, 4/3], half are one over that: how likely a ratio below 1 is.
    below = 0.5 * (1 - 3 / 4) / (4 / 3 - 3 / 4) + 0.5 * (4 / 3 - 1) / (4 / 3 - 3 / 4)
    assert_share([ratio < 1 for ratio in ratios], below)


def test_two_streams_share_all_but_grey_channels():
    for _, views in drawn("coclr", 400, ("rgb", "flow")):
        for rgb, flow in zip(views["rgb"], views["flow"], strict=True):
            assert (rgb.boxes, rgb.mirrored) == (flow.boxes, flow.mirrored)
            for one, other in zip(rgb.colour, flow.colour, strict=True):
                assert replace(one, gray_channel=0) == replace(other, gray_channel=0) or (
                    min(one.gray_channel, other.gray_channel) >= 0
                )
    gray = [
        (one.gray_channel, other.gray_channel)
        for _, views in drawn("coclr", 2000, ("rgb", "flow"))
        for rgb, flow in zip(views["rgb"], views["flow"], strict=True)
        for one, other in zip(rgb.colour, flow.colour, strict=True)
        if one.gray_channel >= 0
    ]
    assert all(other >= 0 for _, other in gray)
    assert_share([one == other for one, other in gray], 1 / 3)


# ── dpc and cocon: what is drawn ─────────────────────────────────────────────────────────────


def test_dpc_draws_colour_anew_for_every_frame():
    frames = [c for _, v in drawn("dpc", 400, clips=1) for clip in v["rgb"] for c in clip.colour]
    assert len(frames) == 400 * FRAMES
    assert_share([c.gray_channel >= 0 for c in frames], 0.5)
    assert all(c.brightness != 1 and c.sigma == 0 for c in frames)
    for name in ("brightness", "contrast", "saturation"):
        assert_uniform([getattr(c, name) for c in frames], 0.5, 1.5)
    assert_uniform([c.hue for c in frames], -0.25, 0.25)
    assert len({c.brightness for c in frames}) == len(frames), "none is drawn for two frames"
    assert POLICIES["dpc"].gray_first


@pytest.mark.parametrize("policy", ["dpc", "cocon"])
def test_film_is_cropped_to_a_square_of_224_of_240(policy):
    clips = [clip for _, v in drawn(policy, 3000, clips=1) for clip in v["rgb"]]
    boxes = [clip.boxes[0] for clip in clips]
    assert {(round(b.width * 320), round(b.height * 240)) for b in boxes} == {(224, 224)}
    assert_uniform([box.left for box in boxes], 0, 1 - 224 / 320)
    assert_uniform([box.top for box in boxes], 0, 1 - 224 / 240)
    assert_share([clip.mirrored for clip in clips], 0.5)


def test_cocon_draws_every_view_apart_and_mirrors_film_alone():
    samples = [views for _, views in drawn("cocon", 1000, ("rgb", "flow"), clips=1)]
    rgb = [views["rgb"][0] for views in samples]
    flow = [views["flow"][0] for views in samples]
    assert all(len(clip.boxes) == 3 for clip in flow) and not any(clip.mirrored for clip in flow)
    assert_share([clip.mirrored for clip in rgb], 0.5)
    assert {round(box.height * 240) for clip in flow for box in clip.boxes} == {224}
    assert not {clip.boxes[0] for clip in rgb} & {box for clip in flow for box in clip.boxes}


def test_cocon_crops_poses_and_masks_to_153_of_192():
    for _, views in drawn("cocon", 50, ("rgb", "pose", "mask"), clips=1):
        for view in ("pose", "mask"):
            (clip,) = views[view]
            assert not clip.mirrored and len(clip.boxes) == 3
            assert {round(box.height * 192) for box in clip.boxes} == {153}


# ── what is done, against PIL on single frames ───────────────────────────────────────────────


def picture(seed: int = 0, width: int = 160, height: int = 120) -> np.ndarray:
    """A smooth picture of all colours with some grain, uint8 [H, W, 3]."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.BICUBIC)).astype(int)
    return np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def on_frame(operation, frame: np.ndarray) -> np.ndarray:
    """Returns what an operation on clips makes of one frame [H, W, 3]."""
    x = torch.from_numpy(frame).float().permute(2, 0, 1)[None, :, None]
    return operation(x.contiguous())[0, :, 0].permute(1, 2, 0).numpy()


BOXES = [Box(0.1, 0.2, 0.5, 0.6), Box(0.6, 0.5, 0.25, 0.3), WHOLE_FRAME]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("resize", "levels"), [("nearest", 0), ("bilinear", 1), ("bicubic", 2)])
def test_resizing_is_pils(resize, levels, box):
    frames = np.stack([picture(seed) for seed in range(3)])
    got = crop_resize(frames, box, 64, resize)
    for t, frame in enumerate(crop(frames, box)):
        kind = getattr(Image, resize.upper())
        wanted = np.asarray(Image.fromarray(frame).resize((64, 64), kind))
        assert np.abs(got[t].astype(int) - wanted).max() <= levels


@pytest.mark.parametrize("count", [1, 2, 5])
def test_two_channels_are_resized_as_each_by_itself(count):
    frames = np.stack([picture(seed) for seed in range(count)])
    every = crop_resize(frames, BOXES[0], 64, "bicubic")
    got = crop_resize(np.ascontiguousarray(frames[..., :2]), BOXES[0], 64, "bicubic")
    np.testing.assert_array_equal(got, every[..., :2])


@pytest.mark.parametrize("sigma", [0.1, 0.4, 0.9, 1.5, 2.0])
def test_boxes_blur_as_pil_to_its_rounding_after_each_of_six_passes(sigma):
    frame, radius = picture(), box_radius(sigma)
    got = on_frame(lambda x: box_blur(x, torch.tensor([radius]), math.ceil(radius)), frame)
    blurred = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(sigma))
    difference = np.abs(got - np.asarray(blurred).astype(float))
    assert difference.max() <= 3 and difference.mean() <= 1.1


def test_boxes_have_the_variance_of_the_gaussian_that_they_stand_for():
    for sigma in (0.3, 1.0, 2.0, 3.7):
        radius = box_radius(sigma)
        whole, part = math.floor(radius), radius - math.floor(radius)
        inside = 2 * sum(k * k for k in range(whole + 1))
        variance = (inside + 2 * part * (whole + 1) ** 2) / (2 * radius + 1)
        assert 3 * variance == pytest.approx(sigma**2, rel=1e-9)


def by_pil(frame: np.ndarray, draw: ColourDraw, gray_first: bool = False) -> np.ndarray:
    """Changes one frame as published code does: 8 bits after every operation."""
    image = Image.fromarray(frame)

    def gray(image: Image.Image) -> Image.Image:
        if draw.gray_channel < 0:
            return image
        return Image.merge("RGB", [image.split()[draw.gray_channel]] * 3)

    image = gray(image) if gray_first else image
    jitter = (
        (draw.brightness, 1, TF.adjust_brightness),
        (draw.contrast, 1, TF.adjust_contrast),
        (draw.saturation, 1, TF.adjust_saturation),
        (draw.hue, 0, TF.adjust_hue),
    )
    for value, neutral, operation in (jitter[number] for number in draw.order):
        image = image if value == neutral else operation(image, value)
    image = image if gray_first else gray(image)
    if draw.sigma > 0:
        image = image.filter(ImageFilter.GaussianBlur(draw.sigma))
    return np.asarray(image)


@pytest.mark.parametrize(
    ("draw", "most", "mean"),
    [
        (ColourDraw(brightness=1.4), 1, 0.6),
        (ColourDraw(brightness=0.6), 1, 0.6),
        (ColourDraw(contrast=0.6), 2, 0.6),
        (ColourDraw(contrast=1.4), 2, 0.6),
        (ColourDraw(saturation=0.6), 2, 0.6),
        (ColourDraw(saturation=1.4), 2, 0.6),
        (ColourDraw(hue=0.1), 12, 1.1),
        (ColourDraw(hue=-0.1), 12, 1.1),
        (ColourDraw(gray_channel=2), 0, 0),
    ],
)
def test_an_operation_is_pils_to_its_rounding(draw, most, mean):
    """PIL rounds to 8 bits, in hue to 256 steps of a turn, and cuts fractions off."""
    frame = picture()
    got = on_frame(lambda x: apply_colour(x, [draw], POLICIES["coclr"]), frame)
    difference = np.abs(got - by_pil(frame, draw).astype(float))
    assert difference.max() <= most and difference.mean() <= mean


@pytest.mark.parametrize("policy", ["coclr", "dpc"])
def test_a_strong_clip_is_pils_frame_by_frame(policy):
    """All operations in a row, as drawn, for thirty clips."""
    spec, draw = POLICIES[policy], np.random.default_rng(11)
    frames = np.stack([picture(seed) for seed in range(4)])
    differences = []
    for _ in range(30):
        clip = draw_clip(spec, draw, 160 / 120, frames=len(frames))
        cropped = crop_resize(frames, clip.boxes[0], 64, spec.resize)
        x_1CTHW = torch.from_numpy(cropped).float().permute(3, 0, 1, 2)[None].contiguous()
        got_THWC = apply_colour(x_1CTHW, clip.colour, spec)[0].permute(1, 2, 3, 0).numpy()
        for t, whole in enumerate(crop(frames, clip.boxes[0])):
            kind = {"bicubic": Image.BICUBIC, "nearest": Image.NEAREST}[spec.resize]
            small = np.asarray(Image.fromarray(whole).resize((64, 64), kind))
            wanted = by_pil(small, clip.colour[t], spec.gray_first)
            difference = np.abs(got_THWC[t] - wanted.astype(float))
            differences.append(difference.mean())
    # PIL's roundings, hue's above all, which later operations may enlarge.
    assert max(differences) <= 3 and np.mean(differences) <= 1.5


# ── from the loader to the network ───────────────────────────────────────────────────────────


class Numbered:
    """Videos whose frame t is all t; flow to the right, more so in the right half."""

    def __init__(self, length: int = 60) -> None:
        self.length = length

    def frame_count(self, view):
        return np.full(4, self.length)

    def pictures(self, view, video, indices, for_copying=False):
        if view == "rgb":
            frames = np.empty((len(indices), 12, 16, 3), np.uint8)
            frames[...] = np.asarray(indices)[:, None, None, None]
            return frames
        flow = np.full((len(indices), 12, 16, 2), 128, np.uint8)
        flow[..., 0] = 168
        flow[:, :, 8:, 0] = 208
        return flow


SHORT = ClipSpec(frames=4, size=8)


def loader(
    policy: str,
    views: tuple[str, ...],
    shown: str,
    clip: ClipSpec = SHORT,
    clips_per_video: int = 2,
    **facts,
) -> ClipLoader:
    rows = np.arange(4)
    return ClipLoader(
        TrainingVideos(Numbered(), rows, rows, rows),
        views,
        clip,
        replace(POLICIES[policy], **facts),
        4,
        clips_per_video=clips_per_video,
        presentations={"flow": shown},
    )


def samples_of(made: ClipLoader) -> list[HostSample]:
    """Returns what the first batch is made of."""
    order = np.random.default_rng([0, 0]).permutation(4)
    return [made.sampler.sample(0, position, row) for position, row in enumerate(order)]


def test_one_clip_is_one_moment_and_two_clips_are_two():
    made = loader("coclr", ("rgb",), "coclr")
    samples = [made.sampler.sample(0, position, 0) for position in range(600)]
    same = [np.array_equal(s.clips["rgb"][0], s.clips["rgb"][1]) for s in samples]
    # Two clips fall on the same of the 57 starts by chance.
    assert_share(same, 0.5 + 0.5 / 57)


CALM = dict(one_clip=0.0, strong=0.0, crop_area_min=1.0, crop_attempts=1, crop_fallback="whole")


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_motion_as_a_picture_is_mirrored_without_turning_u_round(flip):
    shown = {}
    for policy in ("coclr", "truthful"):
        made = loader(policy, ("flow",), "coclr", **{**CALM, "flip": flip})
        shown[policy] = made.sampler.sample(0, 0, 0).clips["flow"][0, 0, 0, 4].astype(int)
    right_half_moves_more = shown["coclr"][6] > shown["coclr"][1]
    assert right_half_moves_more == (flip == 0.0)
    assert (shown["coclr"] > 128).all()
    assert (shown["truthful"] > 128).all() == (flip == 0.0)


def test_motion_as_a_picture_is_changed_in_colour_as_128_v_u():
    made = loader("coclr", ("flow",), "coclr", one_clip=0.0, strong=1.0, jitter=1.0, blur=0.0)
    (batch,) = next(made.steps(0, 1))
    got, samples = batch.clips["flow"], samples_of(made)
    assert got.shape == (4, 2, 3, 4, 8, 8)
    pixels = torch.from_numpy(np.stack([s.clips["flow"] for s in samples]))
    native = get_view("flow").levels(pixels, "coclr")
    assert (native[..., 0, :, :, :] == 128).all(), "(128, v, u)"
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for clip, frame in ((0, 0), (0, 3), (1, 2)):
        draw = samples[1].colour["flow"][4 * clip + frame]
        image = native[1, clip, :, frame].permute(1, 2, 0).to(torch.uint8).numpy()
        wanted = torch.from_numpy(by_pil(image, draw).copy()).permute(2, 0, 1) / 255
        shown = got[1, clip, :, frame] * std + mean
        assert (shown - wanted).abs().max() <= 8 / 255


def test_flow_in_its_own_form_keeps_its_colour_and_its_sense_under_any_policy():
    made = loader("coclr", ("rgb", "flow"), "native", one_clip=0.0, strong=1.0, flip=1.0)
    sample = made.sampler.sample(0, 0, 0)
    assert list(sample.colour) == ["rgb"]
    assert (sample.clips["flow"][:, 0] < 128).all()


def test_truthful_never_touches_the_colour_of_flow():
    for shown in ("native", "coclr"):
        sample = loader("truthful", ("rgb", "flow"), shown).sampler.sample(0, 0, 0)
        assert list(sample.colour) == ["rgb"]


def test_cocon_takes_the_crop_of_flow_in_which_most_moves():
    best = loader("cocon", ("flow",), "cocon", crop_square=0.5)
    any_one = loader("cocon", ("flow",), "cocon", crop_square=0.5, crop_candidates=0)
    moved = [
        np.mean([m.sampler.sample(0, p, 0).clips["flow"][:, 0].mean() for p in range(200)])
        for m in (best, any_one)
    ]
    # The square of 6 of 16 columns begins anywhere from 0 to 10; right of 8 all moves by 80.
    assert moved[0] > moved[1] + 5
    assert not best.sampler.sample(0, 0, 0).colour


def test_colour_of_a_frame_is_its_own_in_dpc():
    clip = ClipSpec(frames=2, size=8, blocks=3)
    made = loader("dpc", ("rgb",), "native", clip=clip, clips_per_video=1)
    (batch,) = next(made.steps(0, 1))
    for shown, sample in zip(batch.clips["rgb"], samples_of(made), strict=True):
        x = torch.from_numpy(sample.clips["rgb"]).float()
        assert len(sample.colour["rgb"]) == 3 * 2
        for place, draw in enumerate(sample.colour["rgb"]):
            block, frame = divmod(place, 2)
            alone = x[block, :, frame][None, :, None].clone()
            wanted = get_view("rgb").to_float(apply_colour(alone, [draw], POLICIES["dpc"]))
            torch.testing.assert_close(shown[block, :, frame], wanted[0, :, 0])


# ── recipes ──────────────────────────────────────────────────────────────────────────────────

OF_METHOD = dict.fromkeys(("infonce", "ubernce", "coclr", "vicc", "vicc-cross"), "coclr")
OF_METHOD |= {"cpc": "dpc", "cocon": "cocon"}


@pytest.mark.parametrize("name", recipe_names())
def test_published_runs_have_published_augmentation_and_others_the_truthful_one(name):
    method = recipe_card(name).method
    wanted = "truthful" if method is None else OF_METHOD[method]
    recipe = load_recipe(name, method or "infonce", "flow")
    assert recipe.augment.policy == wanted
    if "k400" not in name and method is not None:
        assert recipe.augment == POLICIES[wanted], "to the letter"


def test_dpc_on_kinetics_crops_by_area():
    spec = load_recipe("dpc-k400", "cpc", "rgb").augment
    assert (spec.crop, spec.crop_area_min, spec.resize) == ("area", 0.5, "bilinear")
    assert (spec.crop_attempts, spec.crop_fallback) == (10, "square")
    assert (spec.crop_ratio, spec.per_frame, spec.gray) == ("uniform-or-inverse", "colour", 0.5)


def test_a_policy_that_is_set_replaces_the_recipes_and_its_facts_may_be_changed():
    settings = [("gray", "0.9"), ("policy", "coclr")]
    spec = load_recipe("cpu", "infonce", "rgb", settings).augment
    assert spec == replace(POLICIES["coclr"], gray=0.9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([("policy", "colcr")], "did you mean coclr"),
        ([("resize", "bicubc")], "did you mean bicubic"),
        ([("presentation", "cocn")], "did you mean cocon"),
        ([("one_clip", "1.5")], "one_clip must be a probability"),
        ([("crop_candidates", "3")], "shared=false"),
        ([("crop_attempts", "0")], "at least 1"),
        ([("one_clp", "1")], "did you mean one_clip"),
    ],
)
def test_a_wrong_fact_is_one_sentence(settings, said):
    with pytest.raises(UsageError, match=said):
        load_recipe("paper", "infonce", "rgb", settings)


def test_an_unknown_policy_names_those_there_are():
    with pytest.raises(UsageError, match="there are truthful, coclr, dpc, cocon"):
        get_policy("none")


# ── through the stages ───────────────────────────────────────────────────────────────────────

SMALL = ["--recipe", "cpu", "--epochs", 1, "--batch-size", 4, "--set", "frames=2"]
SMALL += ["--set", "size=32"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "workspace"
    workspace = Workspace(folder)
    annotate(workspace, make_pack(workspace, [0, 1] * 5, ("rgb", "flow"), length=14))
    return folder


def test_published_flow_trains_as_a_picture_and_is_evaluated_as_one(packed):
    published = [*SMALL, "--set", "policy=coclr"]
    for stream in ("rgb", "flow"):
        vidssl("pretrain", "--stream", stream, *published, workspace=packed)
    vidssl("cotrain", "--stream", "rgb", "--k", 2, *published, workspace=packed)
    checkpoint = Workspace(packed).resolve("checkpoint", "flow-infonce")
    spec = checkpoint_encoder(checkpoint, "flow").spec
    assert (spec.channels, spec.presentation) == (3, "coclr")
    assert checkpoint.recipe["augment"]["policy"] == "coclr"
    vidssl("probe", "-c", "flow-infonce", workspace=packed)


def test_an_encoder_that_began_otherwise_goes_on_seeing_what_it_saw(packed):
    own = ["pretrain", "--stream", "flow", *SMALL, "--name", "own"]
    vidssl(*own, workspace=packed)
    more = [*own[:-1], "more", "--init-from", "own", "--set", "policy=coclr"]
    said = " ".join(vidssl(*more, workspace=packed).err.split())
    assert "shows flow as coclr, but its encoder began with native" in said
    assert "its colour is left alone" in said
    spec = checkpoint_encoder(Workspace(packed).resolve("checkpoint", "more"), "flow").spec
    assert (spec.channels, spec.presentation) == (2, "native")
