"""mAP: against a slow twin, its chance against random rankings, ties in the gallery's order."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.evaluation import average_precision
from vidssl.evaluation.average_precision import mean_precision


def slow_precision(scores: list[float], right: list[bool]) -> float:
    ranking = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    hits, total = 0, 0.0
    for rank, place in enumerate(ranking, 1):
        if right[place]:
            hits += 1
            total += hits / rank
    return total / sum(right)


def drawn(seed: int, queries: int = 23, gallery: int = 40):
    draw = np.random.default_rng(seed)
    q, g = draw.normal(size=(queries, 5)), draw.normal(size=(gallery, 5))
    return q, g, draw.integers(0, 4, queries), draw.integers(0, 4, gallery)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_its_slow_twin(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(average_precision, "BLOCK_ENTRIES", 200)  # several blocks
    q, g, of_q, of_g = drawn(seed)
    each = [
        slow_precision((q[i] @ g.T).tolist(), (of_g == of_q[i]).tolist()) for i in range(len(q))
    ]
    found = mean_precision(q, g, of_q, of_g)
    assert found.mean == pytest.approx(np.mean(each), abs=1e-6)
    assert found.error == pytest.approx(np.std(each) / len(q) ** 0.5, abs=1e-6)
    assert found.queries == len(q)


def test_its_chance_is_that_of_random_rankings():
    draw = np.random.default_rng(0)
    _, g, of_q, of_g = drawn(0)
    means = [
        mean_precision(draw.normal(size=(len(of_q), 5)), g, of_q, of_g).mean for _ in range(200)
    ]
    wanted = mean_precision(draw.normal(size=(len(of_q), 5)), g, of_q, of_g).chance
    # Rankings of one gallery by five random numbers are not independent of each other.
    shuffled = []
    for _ in range(300):
        order = draw.permutation(len(of_g))
        scores = -np.argsort(order).astype(float)
        shuffled += [slow_precision(scores.tolist(), (of_g == label).tolist()) for label in of_q]
    assert wanted == pytest.approx(np.mean(shuffled), abs=0.01)
    assert abs(np.mean(means) - wanted) < 0.03


def test_equal_rows_keep_the_gallerys_order_and_a_perfect_ranking_is_one():
    same = np.ones((1, 2)), np.ones((4, 2))
    assert mean_precision(*same, np.array([1]), np.array([1, 0, 1, 0])).mean == pytest.approx(
        (1 + 2 / 3) / 2
    )
    eye = np.eye(3)
    assert mean_precision(eye, eye, np.arange(3), np.arange(3)).mean == 1.0


def test_queries_whose_label_is_not_in_the_gallery_are_left_out():
    q, g, _, _ = drawn(1, 2, 3)
    found = mean_precision(q, g, np.array([0, 7]), np.array([0, 0, 1]))
    assert found.queries == 1
    assert mean_precision(q, g, np.array([8, 7]), np.array([0, 0, 1])) is None
