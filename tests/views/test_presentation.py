"""How imported weights see a view: the published 8-bit values, channels and ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidssl.augment import AugmentSpec
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader
from vidssl.views import get_view
from vidssl.views.flow import quantise, to_published

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_the_levels_are_those_of_the_published_map():
    flow = np.linspace(-25, 25, 401, dtype=np.float32)
    stored = torch.from_numpy(quantise(flow, 20.0))
    published = np.rint((np.clip(flow, -20, 20) + 20) * 255 / 40)
    # Two roundings: ours to 1/127 of the bound, then theirs.
    assert np.abs(to_published(stored).numpy() - published).max() <= 1
    assert to_published(torch.tensor([1, 128, 255])).tolist() == [0, 128, 255]


def test_coclr_sees_a_colour_picture_of_128_v_u():
    flow = torch.zeros(1, 2, 1, 1, 1, dtype=torch.uint8)
    flow[0, 0], flow[0, 1] = 255, 1  # u fully right, v fully up
    shown = get_view("flow").present(flow, "coclr")
    assert shown.shape == (1, 3, 1, 1, 1)
    levels = (128, 0, 255)
    wanted = [(level / 255 - m) / s for level, m, s in zip(levels, MEAN, STD, strict=True)]
    torch.testing.assert_close(shown.flatten(), torch.tensor(wanted))


def test_cocon_sees_two_channels_around_zero():
    flow = torch.tensor([255, 1], dtype=torch.uint8).view(1, 2, 1, 1, 1)
    shown = get_view("flow").present(flow, "cocon")
    assert shown.flatten().tolist() == [0.5, -0.5]
    still = torch.full((1, 2, 3, 4, 4), 128, dtype=torch.uint8)
    assert get_view("flow").present(still, "cocon").abs().max() < 0.01


@pytest.mark.parametrize("view", ["rgb", "flow"])
def test_native_is_to_float(view):
    shown = get_view(view)
    x = torch.randint(0, 256, (1, shown.channels, 2, 4, 4), dtype=torch.uint8)
    assert shown.present(x).equal(shown.to_float(x))
    assert shown.input_channels() == shown.channels


def test_the_uint8_input_is_left_alone():
    x = torch.randint(0, 256, (1, 2, 2, 4, 4), dtype=torch.uint8)
    before = x.clone()
    for presentation in ("coclr", "cocon"):
        get_view("flow").present(x, presentation)
        get_view("flow").present(x.float(), presentation)
    assert x.equal(before)


def test_an_unknown_presentation_is_one_sentence():
    with pytest.raises(UsageError, match="it has native, coclr, cocon"):
        get_view("flow").input_channels("cocoon")
    with pytest.raises(UsageError, match=r"it has native$"):
        get_view("rgb").present(torch.zeros(1, 3, 1, 1, 1), "coclr")


def test_training_shows_what_the_loader_was_told():
    class Still:
        def frame_count(self, view):
            return np.array([4, 4])

        def pictures(self, view, video, indices, for_copying=False):
            return np.full((len(indices), 8, 8, 2), 128, np.uint8)

    rows = np.arange(2)
    videos = TrainingVideos(Still(), rows, rows, rows)
    clip = ClipSpec(frames=2, stride=1, size=8)
    made = ClipLoader(videos, ["flow"], clip, AugmentSpec(), 2, presentations={"flow": "coclr"})
    (batch,) = next(made.steps(0, 1))
    assert batch.clips["flow"].shape == (2, 2, 3, 2, 8, 8)
