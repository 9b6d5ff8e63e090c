"""Sizes of frames, and frames of other sizes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidssl.views.resize import resize, short_side


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 17])
@pytest.mark.parametrize(
    ("size", "method"), [((30, 20), cv2.INTER_AREA), ((90, 70), cv2.INTER_LINEAR)]
)
def test_any_number_of_channels_is_resized_as_each_by_itself(channels, size, method):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, channels), np.uint8)
    found = resize(frame, size, method)
    assert found.shape == (size[1], size[0], channels)
    for channel in range(channels):
        alone = cv2.resize(np.ascontiguousarray(frame[..., channel]), size, interpolation=method)
        np.testing.assert_array_equal(found[..., channel], alone)


def test_the_same_size_is_the_same_frame():
    frame = np.zeros((4, 6, 17), np.uint8)
    assert resize(frame, (6, 4)) is frame


def test_short_side_keeps_the_aspect_and_enlarges_nothing():
    assert short_side(320, 240, 120) == (160, 120)
    assert short_side(240, 320, 120) == (120, 160)
    assert short_side(321, 241, 128) == (170, 128)
    assert short_side(320, 240, 480) == (320, 240)
    assert short_side(320, 240, None) == (320, 240)
    assert short_side(4000, 2, 1) == (2000, 1)
