"""Splits of a set of videos: what a split selects, and the 80/20 split that is drawn by group.

Legend: V videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEEDED, EVERYTHING = "80/20", "all"  # splits that need no column
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Selection:
    """The train and test videos of a split.

    Attributes:
        name: the split column, "80/20" or "all".
        train, test: positions among the videos [N], ascending; a video may be in neither.
        note: one phrase that describes the split to the user.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    note: str


def draw_test(label_V: np.ndarray, group_V: np.ndarray, seed: int) -> np.ndarray:
    """Draws whole groups for the test part, about a fifth of each class: bool [V].

    Groups are drawn in the order of their names, so the order of the videos does not matter.
    A class with a single group stays in the training part, and so do videos without a label.

    Args:
        label_V, group_V: numbers of the class (−1: none) and of the group of each video.
    """
    draw = np.random.default_rng(seed)
    test: np.ndarray = np.zeros(len(label_V), bool)
    by_group = np.argsort(group_V, kind="stable")
    first = np.searchsorted(group_V[by_group], np.arange(1, int(group_V.max(initial=-1)) + 1))
    of_group = np.split(by_group, first)
    class_of = [_most_common(label_V[members]) for members in of_group]
    for label in range(int(label_V.max(initial=-1)) + 1):
        mine = [members for members, c in zip(of_group, class_of, strict=True) if c == label]
        wanted = TEST_SHARE * sum(map(len, mine))
        taken = 0
        for i in draw.permutation(len(mine))[: max(0, len(mine) - 1)]:
            if taken == 0 or taken + len(mine[i]) <= wanted:
                test[mine[i]] = True
                taken += len(mine[i])
    return test


def _most_common(labels: np.ndarray) -> int:
    """Returns the most frequent label of a group, -1 if none of its videos has one."""
    known = labels[labels >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1


def selection_of(name: str, train: np.ndarray, test: np.ndarray, what: str) -> Selection:
    """Returns the selection of two masks [V], with a note that begins with `what`."""
    left = len(train) - int(train.sum()) - int(test.sum())
    note = f"{what}: {train.sum()} to train, {test.sum()} to test"
    note += f", {left} in neither" if left else ""
    return Selection(name, np.flatnonzero(train), np.flatnonzero(test), note)
