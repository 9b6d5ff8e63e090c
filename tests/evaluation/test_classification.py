"""The report of a classification."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.evaluation.classification import class_row


def test_per_class_table_by_hand() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 1]])
    rows = [class_row(confusion, k, ["a", "b", "c"]) for k in range(3)]
    assert [(r.accuracy, r.confused_with, r.confused) for r in rows] == [
        (0.75, "b", 1),
        (None, None, 0),
        (pytest.approx(1 / 3), "a", 2),
    ]
