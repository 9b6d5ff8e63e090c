"""Top-k and recall against slow twins and numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vidssl.base.errors import VidsslError
from vidssl.evaluation import neighbours
from vidssl.evaluation.neighbours import centred_unit, chance_at, recall_at, top_k
from vidssl.evaluation.standard_error import standard_error


def slow_top_k(queries: np.ndarray, gallery: np.ndarray, k: int) -> list[list[int]]:
    found = []
    for q in queries:
        scored = [(-float(q @ g), place) for place, g in enumerate(gallery)]
        found.append([place for _, place in sorted(scored)[:k]])
    return found


@pytest.mark.parametrize("k", [1, 5, 40, 99])
def test_top_k_is_the_slow_twin(k: int) -> None:
    draw = np.random.default_rng(3)
    queries = centred_unit(draw.normal(size=(17, 8)))
    gallery = centred_unit(draw.normal(size=(40, 8)))
    found = top_k(queries, gallery, k)
    assert found.index.tolist() == slow_top_k(queries, gallery, min(k, 40))
    assert np.allclose(found.similarity, np.take_along_axis(queries @ gallery.T, found.index, 1))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    # Whole numbers make exact ties, which must come in the gallery's order in any blocking.
    queries = draw.integers(-2, 3, (23, 4)).astype(np.float32)
    gallery = draw.integers(-2, 3, (200, 4)).astype(np.float32)
    whole = top_k(queries, gallery, 7)
    assert whole.index.tolist() == slow_top_k(queries, gallery, 7)
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", 60)
    monkeypatch.setattr(neighbours, "BLOCK_COLUMNS", 11)
    assert top_k(queries, gallery, 7).index.tolist() == whole.index.tolist()


def test_two_streams_side_by_side_add_up() -> None:
    draw = np.random.default_rng(5)
    rgb_q, flow_q = (centred_unit(draw.normal(size=(6, d))) for d in (5, 9))
    rgb_g, flow_g = (centred_unit(draw.normal(size=(30, d))) for d in (5, 9))
    both = top_k(np.hstack([rgb_q, flow_q]), np.hstack([rgb_g, flow_g]), 30)
    summed = rgb_q @ rgb_g.T + flow_q @ flow_g.T
    assert np.allclose(np.sort(both.similarity), np.sort(summed), atol=1e-6)


def test_centring_takes_the_rows_own_mean_or_the_one_given() -> None:
    x = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])  # mean (2, 1)
    unit = centred_unit(x)
    assert np.allclose(unit[0], np.array([-1, -1]) / np.sqrt(2))
    assert np.allclose(unit[2], [0, 1])
    assert np.allclose(centred_unit(x[:1], np.array([1.0, -5.0])), [[0, 1]])


def test_recall_by_hand() -> None:
    gallery = np.array([0, 0, 1, 2])
    queries = np.array([0, 1, 2, 3])
    ranked = np.array([[0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 2, 3], [3, 2, 1, 0]])
    table = {row.k: row for row in recall_at(ranked, queries, gallery, (1, 2, 4, 50))}
    assert [table[k].recall for k in (1, 2, 4, 50)] == [0.25, 0.5, 0.75, 0.75]
    assert table[2].error == pytest.approx(0.25)  # sqrt(½·½ / 4)
    # k = 1: labels 0, 1, 2, 3 are hit with 2/4, 1/4, 1/4, 0.
    assert table[1].chance == pytest.approx((0.5 + 0.25 + 0.25 + 0) / 4)


def test_chance_is_the_mean_over_all_orders() -> None:
    gallery, queries = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 7])
    for k in (1, 2, 3, 5):
        orders = list(itertools.permutations(range(5)))
        hits = [
            np.mean([label in gallery[list(order[:k])] for label in queries]) for order in orders
        ]
        assert chance_at(queries, gallery, k) == pytest.approx(np.mean(hits))


def test_all_or_none_of_a_few_is_not_known_to_the_last_digit() -> None:
    for n in (1, 3, 20):
        # Wilson's interval for one standard error has the centre (p + 1/2n) / (1 + 1/n), and at
        # p = 0 reaches as far to either side.
        centre = (1 / (2 * n)) / (1 + 1 / n)
        assert standard_error(0.0, n) == pytest.approx(2 * centre)
        assert standard_error(1.0, n) == standard_error(0.0, n)
    assert standard_error(0.5, 4) == 0.25
    assert standard_error(1 / 20, 20) == pytest.approx((1 / 20 * 19 / 20 / 20) ** 0.5)
    nothing, everything = np.array([[0]] * 3), np.array([[1]] * 3)
    for ranked, hit in ((nothing, 0.0), (everything, 1.0)):
        (row,) = recall_at(ranked, np.array([1, 1, 1]), np.array([0, 1]), (1,))
        assert (row.recall, row.error) == (hit, 0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_rows_that_are_no_numbers_have_no_neighbours(value: float) -> None:
    """Nor those whose length is none: their cosine would be 0 with everything."""
    draw = np.random.default_rng(6)
    x = draw.normal(size=(9, 4)).astype(np.float32)
    broken = x.copy()
    broken[5, 2] = value
    with pytest.raises(VidsslError, match=r"1 of 9 features have values that are no numbers .*5"):
        centred_unit(broken)
    with pytest.raises(VidsslError, match="1 of 9 queries have values"):
        top_k(broken, x, 3)
    with pytest.raises(VidsslError, match="1 of 9 videos to be found have values"):
        top_k(x, broken, 3)
