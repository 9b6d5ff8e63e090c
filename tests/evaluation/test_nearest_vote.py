"""The weighted vote of nearest neighbours, against a loop over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidssl.base.errors import UsageError
from vidssl.evaluation.nearest_vote import VoteConfig, vote_shares
from vidssl.evaluation.split_average import mean_over_splits


def votes_by_loops(
    queries: np.ndarray, train: np.ndarray, labels: np.ndarray, classes: int, k: int, heat: float
) -> np.ndarray:
    found = np.zeros((len(queries), classes))
    for row, query in enumerate(queries.astype(float)):
        cosines = [
            float(query @ other / (np.linalg.norm(query) * np.linalg.norm(other)))
            for other in train.astype(float)
        ]
        for near in sorted(range(len(train)), key=lambda j: -cosines[j])[:k]:
            found[row, labels[near]] += math.exp(cosines[near] / heat)
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize(("k", "heat"), [(1, 0.07), (5, 0.07), (20, 0.5), (500, 0.1)])
def test_shares_are_those_of_a_loop(k: int, heat: float) -> None:
    draw = np.random.default_rng(0)
    queries, train = (draw.normal(size=(n, 6)).astype(np.float32) for n in (7, 40))
    labels = draw.integers(0, 3, 40)
    shares = vote_shares(queries, train, labels, 3, VoteConfig(k, heat))
    assert shares == pytest.approx(votes_by_loops(queries, train, labels, 3, k, heat), abs=1e-5)
    assert shares.sum(1) == pytest.approx(1)


def test_one_neighbour_is_its_class_and_a_small_temperature_does_not_overflow() -> None:
    train = np.eye(3, dtype=np.float32)
    shares = vote_shares(train * 5, train, np.array([2, 0, 1]), 3, VoteConfig(3, 1e-4))
    assert shares.argmax(1).tolist() == [2, 0, 1] and np.isfinite(shares).all()


def test_settings_without_meaning_are_refused() -> None:
    for wrong in ({"k": 0}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            VoteConfig(**wrong)


def test_the_mean_over_splits_and_its_error() -> None:
    found = mean_over_splits([0.5, 0.6, 0.7])
    assert found.mean == pytest.approx(0.6) and found.splits == 3
    assert found.error == pytest.approx(0.1 / math.sqrt(3))  # s = 0.1
