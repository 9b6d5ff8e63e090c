"""Augmentation: each colour operation against torchvision on single frames; draws by statistics."""

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF

from vidssl.augment import (
    POLICIES,
    AugmentSpec,
    Box,
    ColourDraw,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_colour,
    centre_square,
    colour,
    crop_resize,
    draw_clip,
    gaussian_blur,
)
from vidssl.augment.area_resize import area_weights, shrink_by_area
from vidssl.augment.colour import replicate_channel
from vidssl.augment.random_draws import draw_colours


def some_clips(clips: int = 3) -> torch.Tensor:
    return torch.rand(clips, 3, 2, 12, 10, generator=torch.Generator().manual_seed(0)) * 255


PAIRS = [
    (adjust_brightness, TF.adjust_brightness, (0.6, 1.4, 1.0)),
    (adjust_contrast, TF.adjust_contrast, (0.6, 1.4, 1.0)),
    (adjust_saturation, TF.adjust_saturation, (0.0, 1.4, 2.0)),
    (adjust_hue, TF.adjust_hue, (-0.1, 0.1, 0.45)),
]


@pytest.mark.parametrize(("ours", "reference", "factors"), PAIRS, ids=lambda p: str(p)[:24])
def test_colour_operation_equals_torchvision_on_every_frame(ours, reference, factors):
    x = some_clips()
    got = ours(x.clone(), torch.tensor(factors))
    for clip, factor in enumerate(factors):
        for frame in range(x.shape[2]):
            wanted = reference(x[clip, :, frame] / 255, factor) * 255
            torch.testing.assert_close(got[clip, :, frame], wanted, atol=0.02, rtol=0)


def test_blur_equals_torchvision():
    x = some_clips(2)
    got = gaussian_blur(x.clone(), torch.tensor([0.8, 1.5]), reach=5)
    for clip, sigma in enumerate((0.8, 1.5)):
        wanted = TF.gaussian_blur(x[clip].transpose(0, 1), [11, 11], [sigma, sigma])
        torch.testing.assert_close(got[clip].transpose(0, 1), wanted, atol=0.05, rtol=0)


@pytest.mark.parametrize(("border", "passes"), [("reflect", 1), ("replicate", 3)])
def test_filters_of_a_gpu_and_of_a_cpu_are_the_same(border, passes):
    x, taps = some_clips(2), torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1], [0.0, 0.3, 0.4, 0.3, 0.0]])
    at_once = colour.filter_at_once(x.clone(), taps, border, passes)
    by_planes = colour.filter_by_planes(x.clone(), taps, border, passes)
    torch.testing.assert_close(at_once, by_planes, atol=1e-3, rtol=0)
    assert (at_once - x).abs().max() > 10


def test_each_clip_gets_only_its_own_changes_in_its_own_order():
    x = some_clips(3)
    first = ColourDraw(brightness=1.3, contrast=0.5, order=(1, 0, 2, 3))
    got = apply_colour(x.clone(), [first, ColourDraw(), ColourDraw(gray_channel=2)])
    frame = TF.adjust_brightness(TF.adjust_contrast(x[0, :, 0] / 255, 0.5), 1.3) * 255
    torch.testing.assert_close(got[0, :, 0], frame, atol=0.02, rtol=0)
    torch.testing.assert_close(got[1], x[1])
    torch.testing.assert_close(got[2], x[2, 2].expand(3, -1, -1, -1))


@pytest.mark.parametrize("policy", ["truthful", "coclr", "dpc"])
def test_a_batch_at_once_is_its_clips_one_by_one(policy):
    """A GPU changes all clips in one go, a CPU one after the other."""
    spec, draw = POLICIES[policy], np.random.default_rng(5)
    frames = 2 if spec.per_frame != "nothing" else 1
    draws = [c for _ in range(12) for c in draw_colours(spec, draw, True, frames)]
    x = some_clips(12)
    one_by_one = apply_colour(x.clone(), draws, spec)
    at_once = x.clone() if frames == 1 else x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    colour._change(at_once, draws, spec)
    if frames > 1:
        at_once = at_once.squeeze(2).unflatten(0, (12, 2)).transpose(1, 2)
    torch.testing.assert_close(at_once, one_by_one, atol=1e-3, rtol=0)


def test_channel_shuffle_permutes():
    x = some_clips(1)
    got = apply_colour(x.clone(), [ColourDraw(channels=(2, 0, 1))])
    torch.testing.assert_close(got[0], x[0, [2, 0, 1]])


def test_crop_resize_takes_the_box():
    frames = np.zeros((2, 20, 40, 2), np.uint8)
    frames[:, 10:, 20:] = 200
    assert (crop_resize(frames, Box(0.5, 0.5, 0.5, 0.5), 8) == 200).all()
    assert (crop_resize(frames, Box(0.0, 0.0, 0.5, 0.5), 8) == 0).all()


def test_crop_resize_is_opencv_frame_by_frame():
    frames = np.random.default_rng(0).integers(0, 256, (3, 33, 47, 3), np.uint8)
    got = crop_resize(frames, Box(0.25, 0.1, 0.5, 0.8), 16)
    for t in range(3):
        cut = frames[t, 3:29, 12:36]
        wanted = cv2.resize(cut, (16, 16), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(got[t], wanted)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 4 / 3, 3.0])
def test_drawn_boxes_lie_in_the_frame_and_keep_area_and_ratio(aspect):
    draw = np.random.default_rng(1)
    spec = AugmentSpec(crop_area_min=0.2, crop_area_max=0.4)
    for _ in range(200):
        (box,) = draw_clip(spec, draw, aspect).boxes
        assert box.left >= 0 and box.left + box.width <= 1 + 1e-9
        assert box.top >= 0 and box.top + box.height <= 1 + 1e-9
        assert 0.2 - 1e-9 <= box.width * box.height <= 0.4 + 1e-9
        assert 3 / 4 - 1e-9 <= box.width / box.height * aspect <= 4 / 3 + 1e-9


def test_centre_square_is_square_in_pixels():
    box = centre_square(320 / 240, share=0.5)
    assert box.width * 320 == pytest.approx(120)
    assert box.height * 240 == pytest.approx(120)
    assert box.left * 320 == pytest.approx(100)


def test_probabilities_are_those_of_the_spec():
    draw = np.random.default_rng(2)
    spec = AugmentSpec()
    draws = [draw_clip(spec, draw, 1.0) for _ in range(4000)]
    colours = [c for d in draws for c in d.colour]
    assert len(colours) == len(draws)
    tolerance = pytest.approx
    assert np.mean([d.mirrored for d in draws]) == tolerance(0.5, abs=0.03)
    assert np.mean([c.brightness != 1.0 for c in colours]) == tolerance(0.8, abs=0.03)
    assert np.mean([c.gray_channel >= 0 for c in colours]) == tolerance(0.2, abs=0.03)
    assert np.mean([c.sigma > 0 for c in colours]) == tolerance(0.5, abs=0.03)
    assert max(abs(c.hue) for c in colours) <= 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("sides", [(128, 200), (131, 255), (256, 137), (200, 333)])
def test_shrinking_by_area_is_opencvs_to_rounding(channels, sides):
    draw = np.random.default_rng(channels)
    frames = draw.integers(0, 256, (3, *sides, channels), np.uint8)
    got = np.empty((3, 128, 128, channels), np.uint8)
    shrink_by_area(frames, got)
    for frame, small in zip(frames, got, strict=True):
        wanted = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA).reshape(small.shape)
        difference = np.abs(small.astype(int) - wanted)
        assert difference.max() <= 1  # where a mean lies half way between two levels
        assert np.count_nonzero(difference) < 1e-3 * difference.size


@pytest.mark.parametrize(("old", "new"), [(5, 3), (128, 128), (340, 128), (7, 1)])
def test_shares_of_area_cover_every_old_pixel_equally(old, new):
    found = area_weights(old, new)
    given = torch.zeros(old).index_add_(0, found.old, found.weight)
    torch.testing.assert_close(given, torch.full((old,), new / old))
    torch.testing.assert_close(found.sum_rows(torch.ones(old, 1)), torch.ones(new, 1))


def test_one_channel_for_all_is_the_same_for_numbers_and_tensors():
    x = torch.rand(1, 3, 2, 4, 4)
    assert replicate_channel(x.clone(), 2).equal(replicate_channel(x.clone(), torch.tensor([2])))
