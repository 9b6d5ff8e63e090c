"""Whitening: what one video's windows differ in counts less; no label, no test video is used."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.base.errors import UsageError, VidsslError
from vidssl.evaluation import whitening
from vidssl.evaluation.features import Features
from vidssl.evaluation.whitening import check_metric, fit_whitening, whitened_means

VIDEOS, WINDOWS, WIDTH = 30, 6, 4


def features(seed: int = 0, windows: int = WINDOWS) -> Features:
    """Returns windows that differ within a video mostly along the first direction."""
    draw = np.random.default_rng(seed)
    centre = draw.normal(size=(VIDEOS, 1, WIDTH)) * [0.1, 1, 1, 1] + [0, 0, 0, 5]
    within = draw.normal(size=(VIDEOS, windows, WIDTH)) * [2, 0.05, 0.05, 0.05]
    rows = (centre + within).reshape(-1, WIDTH).astype(np.float32)
    return Features(
        ids=tuple(map(str, range(VIDEOS))),
        windows=rows,
        starts=np.tile(np.arange(windows), VIDEOS),
        offsets=np.arange(VIDEOS + 1) * windows,
    )


def within(x_WD: np.ndarray) -> np.ndarray:
    each = x_WD.reshape(VIDEOS, WINDOWS, -1)
    apart = (each - each.mean(1, keepdims=True)).reshape(-1, x_WD.shape[1])
    return apart.T @ apart / len(apart)


def test_without_regularisation_windows_vary_equally_in_every_direction(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(whitening, "REGULARISATION", 0.0)
    found = features()
    whiten = fit_whitening(found, range(VIDEOS))
    assert np.allclose(within(whiten(found.unit_windows())), np.eye(WIDTH), atol=1e-3)


def test_it_is_the_formula():
    found = features()
    covariance = within(found.unit_windows().astype(np.float64))
    variance = np.linalg.eigvalsh(covariance)
    wanted = np.linalg.inv(covariance + 0.1 * variance.mean() * np.eye(WIDTH))
    whiten = fit_whitening(found, range(VIDEOS))
    assert np.allclose(whiten.map @ whiten.map.T, wanted, rtol=1e-4)
    assert np.allclose(whiten.mean, found.video_means().mean(0), atol=1e-6)


def test_only_the_given_videos_are_fitted_to():
    found = features()
    other = found.windows.copy()
    other[10 * WINDOWS :] = np.random.default_rng(9).normal(size=(20 * WINDOWS, WIDTH))
    changed = Features(found.ids, other, found.starts, found.offsets)
    one, two = (fit_whitening(f, range(10)) for f in (found, changed))
    assert np.array_equal(one.map, two.map) and np.array_equal(one.mean, two.mean)


def test_videos_are_told_apart_by_what_their_windows_share():
    """Two groups of videos differ in the second direction; windows vary along the first."""
    found = features(1)
    group = np.arange(VIDEOS) % 2
    rows = found.windows.copy()
    rows[:, 1] += np.repeat(np.where(group, 0.6, -0.6), WINDOWS)
    found = Features(found.ids, rows, found.starts, found.offsets)

    def nearest_is_of_its_group(x_VD: np.ndarray) -> float:
        unit = x_VD - x_VD.mean(0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        score = unit @ unit.T
        np.fill_diagonal(score, -2)
        return float((group[score.argmax(1)] == group).mean())

    plain = nearest_is_of_its_group(found.video_means())
    assert nearest_is_of_its_group(whitened_means(found, range(VIDEOS))) > plain


def test_videos_of_one_window_each_cannot_be_whitened():
    with pytest.raises(VidsslError, match="one window"):
        fit_whitening(features(windows=1), range(VIDEOS))


def test_an_unknown_metric_is_told():
    with pytest.raises(UsageError, match="no metric whitend"):
        check_metric("whitend")
