"""Selects the split to evaluate, and warns of small test parts and of videos without labels."""

from __future__ import annotations

import math

import numpy as np

from vidssl.base.text import agree, counted
from vidssl.dataset.annotations import Annotations
from vidssl.dataset.splits import SEEDED, Selection
from vidssl.workspace.artifacts import Artifact

FEWEST_TESTS = 30  # videos; with fewer, one standard error can be more than 9 points


def split_seed(checkpoint: Artifact, seed: int = 0) -> int:
    """Returns the seed of the random split that a checkpoint was trained with.

    Args:
        seed: the answer for a checkpoint that records none.
    """
    # A finetuned network keeps the split of the encoder that it started from, not its own seed's.
    return int(checkpoint.recipe.get("split_seed", checkpoint.recipe.get("seed", seed)))


def select_split(
    annotations: Annotations, split: str | None, trained_with: str | None, seed: int
) -> Selection:
    """Returns a split: the named one, or else the one trained with, or else the default.

    Args:
        trained_with: the name of the split that a checkpoint was trained with.
        seed: of a randomly drawn split.

    Raises:
        VidsslError: there is no split of that name.
    """
    # Whoever trained with a random split keeps it, even if the annotations got splits since then.
    if split is None and (trained_with == SEEDED or trained_with in annotations.splits):
        split = trained_with
    return annotations.select(split, seed)


def without_label(selection: Selection, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Returns a sentence if videos of a split are left out because they have no label.

    Args:
        train, test: numbers of the labelled videos in each part.
    """
    left = len(selection.train) + len(selection.test) - len(train) - len(test)
    if not left:
        return []
    verbs = agree(left, "has no label and is", "have no label and are")
    return [f"{counted(left, 'video')} of the split {verbs} left out"]


def too_few(tests: int) -> list[str]:
    """Returns a sentence if a test part is so small that its results are unreliable.

    The standard error of a share of n videos is sqrt(p(1 − p) / n), at most 0.5 / √n.

    Args:
        tests: number of test videos.
    """
    if tests >= FEWEST_TESTS:
        return []
    return [
        f"the test part has only {counted(tests, 'video')}: each counts {100 / tests:.0f} of "
        f"100 points, and one standard error is up to {50 / math.sqrt(tests):.0f}, so smaller "
        "differences say nothing"
    ]
