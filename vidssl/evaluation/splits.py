"""Splits of a pack: selects the one to evaluate, and warns of small or unlabelled parts."""

from __future__ import annotations

import math

import numpy as np

from vidssl.base.text import agree, counted
from vidssl.dataset.annotations import (
    SEEDED,
    Annotations,
    Selection,
)
from vidssl.workspace.artifacts import Artifact

FEWEST_TESTS = 30  # videos; of fewer, a standard error may be 9 points and more


def split_seed(checkpoint: Artifact, seed: int = 0) -> int:
    """Returns the seed of the split that a checkpoint was trained with, were it a drawn one.

    Args:
        seed: of a checkpoint that does not say.
    """
    # A finetuned network keeps the split of the encoder it began from, whatever its own seed.
    return int(checkpoint.recipe.get("split_seed", checkpoint.recipe.get("seed", seed)))


def select_split(
    annotations: Annotations, split: str | None, trained_with: str | None, seed: int
) -> Selection:
    """Returns the split to evaluate: the one named, else the one trained with, else the default.

    Raises:
        VidsslError: there is no split of that name.
    """
    # A drawn split that was trained with stays, also where split columns have come since.
    if split is None and (trained_with == SEEDED or trained_with in annotations.splits):
        split = trained_with
    return annotations.select(split, seed)


def without_label(selection: Selection, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Returns a sentence if videos of a split are left out because they have no label."""
    left = len(selection.train) + len(selection.test) - len(train) - len(test)
    if not left:
        return []
    verbs = agree(left, "has no label and is", "have no label and are")
    return [f"{counted(left, 'video')} of the split {verbs} left out"]


def too_few(tests: int) -> list[str]:
    """Returns a sentence if a test part is so small that its figures say little.

    A share of n videos is known to sqrt(p(1 − p) / n), at most 0.5 / √n.
    """
    if tests >= FEWEST_TESTS:
        return []
    return [
        f"the test part has only {counted(tests, 'video')}: each counts {100 / tests:.0f} of "
        f"100 points, and one standard error is up to {50 / math.sqrt(tests):.0f}, so smaller "
        "differences say nothing"
    ]
