"""Neighbours mined in the whole set: against a slow twin, mutual, never of the own source."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.training.mined_neighbours import mutual_neighbours


def drawn(seed: int, videos: int = 23) -> tuple[list[np.ndarray], np.ndarray]:
    draw = np.random.default_rng(seed)
    views = [draw.normal(size=(videos, width)).astype(np.float32) for width in (4, 6)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in views]
    return unit, draw.integers(0, 9, videos)


def slow_neighbours(views: list[np.ndarray], source: np.ndarray, k: int) -> list[list[int]]:
    found = []
    for i in range(len(source)):
        score = {
            j: sum(float(x[i] @ x[j]) for x in views)
            for j in range(len(source))
            if source[j] != source[i]
        }
        found.append(sorted(score, key=lambda j: -score[j])[:k])
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mutual", [False, True])
def test_they_are_those_of_a_slow_twin(seed: int, mutual: bool):
    views, source = drawn(seed)
    wanted = slow_neighbours(views, source, 5)
    if mutual:
        wanted = [[j for j in near if i in wanted[j]] for i, near in enumerate(wanted)]
    found = mutual_neighbours(views, source, 5, mutual)
    assert [[int(j) for j in row if j >= 0] for row in found] == wanted


def test_where_there_are_fewer_the_rest_is_minus_one():
    views = [np.eye(4, dtype=np.float32)]
    found = mutual_neighbours(views, np.array([0, 0, 0, 1]), 3, mutual=False)
    assert found[0].tolist() == [3, -1, -1]
    assert sorted(found[3].tolist()) == [0, 1, 2]
    alone = mutual_neighbours(views, np.zeros(4, np.int64), 2, mutual=True)
    assert (alone == -1).all()
