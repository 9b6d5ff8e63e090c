"""Hand-made features, each computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.evaluation.handmade_features import colour_histogram, flow_histogram, mean_frame


def test_colour_histogram_by_hand() -> None:
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    frames[0] = (255, 0, 64)  # bins 7, 0, 2
    found = colour_histogram(frames)
    assert found[7 * 64 + 2] == 0.5 and found[0] == 0.5 and found.sum() == 1


def test_mean_frame_by_hand() -> None:
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    frames[1, :, :24] = (200, 100, 0)
    found = mean_frame(frames).reshape(16, 16, 3)
    assert np.allclose(found[:, :8], (100, 50, 0)) and np.allclose(found[:, 8:], 0)


def test_flow_histogram_by_hand() -> None:
    flow = np.zeros((1, 3, 3, 2), np.float32)
    flow[0, 0, 0] = (3, 0.1)  # top left cell, to the right: bin 4 of −π..π
    flow[0, 2, 2] = (-0.1, -1)  # bottom right cell, up
    flow[0, 1, 1] = (0.2, 0.0)  # slow
    found = flow_histogram(flow).reshape(9, 9)
    total = np.hypot(3, 0.1) + np.hypot(0.1, 1) + 0.2
    assert found[0, 4] == pytest.approx(np.hypot(3, 0.1) / total)
    assert found[8, 1] == pytest.approx(np.hypot(0.1, 1) / total)
    assert found[4, 8] == pytest.approx(0.2 / total)
    assert found.sum() == pytest.approx(1)
    assert flow_histogram(np.zeros((2, 6, 6, 2), np.float32)).sum() == 0
