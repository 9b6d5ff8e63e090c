"""Detects from the figures of the log that training has collapsed, and says so in plain words.

A collapsed encoder computes nearly the same features for every clip. Some losses reward that, and
some optimisers run into it; the loss alone does not always show it.
"""

from __future__ import annotations

from collections.abc import Mapping

from vidssl.base import distributed
from vidssl.base.progress import Task
from vidssl.engine.log import Row
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method

# Healthy runs and untrained networks are far from these bounds (tests/engine/test_collapse.py).
LEAST_STD = 0.05  # of unit vectors; 1: spread over the whole sphere
LEAST_RANK = 1.1  # effective; 1: all on one line
LEAST_USAGE = 0.02  # of prototypes; 1: all used equally
MOST_UNALIGNED, LEAST_DIFFERENCE = 0.98, 0.01  # cosines
FEW_CLIPS = 8  # with fewer clips, rank and usage say nothing


def signs_of_collapse(
    row: Mapping[str, float | int | None], clips: int, supervised: bool = False
) -> list[str]:
    """Returns the signs of collapse in a row of the log; none for a healthy one.

    Args:
        clips: over how many clips `feature_rank` and `prototype_usage` were computed.
        supervised: the method learns from labels; features of few classes may lie on a line.
    """

    def figure(name: str) -> float | None:
        value = row.get(name)
        return None if value is None or value != value else float(value)

    signs = []
    std, rank, usage = (figure(n) for n in ("feature_std", "feature_rank", "prototype_usage"))
    aligned, unaligned = figure("aligned"), figure("unaligned")
    if std is not None and std < LEAST_STD:
        signs.append(
            f"all clips have nearly the same features (their spread is {std:.3f}, and 1 for "
            "features all over the sphere)"
        )
    elif rank is not None and rank < LEAST_RANK and clips >= FEW_CLIPS and not supervised:
        signs.append(f"all features lie on one line (their effective rank is {rank:.2f})")
    if usage is not None and usage < LEAST_USAGE and clips >= FEW_CLIPS:
        signs.append(
            f"nearly all clips fall on the same few prototypes (usage {usage:.3f}, and 1 for all "
            "alike)"
        )
    if (
        aligned is not None
        and unaligned is not None
        and unaligned > MOST_UNALIGNED
        and aligned - unaligned < LEAST_DIFFERENCE
    ):
        signs.append(
            "what belongs together is no more alike than what does not (mean cosines "
            f"{aligned:.3f} and {unaligned:.3f})"
        )
    return signs


def sentence(signs: list[str]) -> str:
    """Returns the signs as one sentence, empty without any."""
    if not signs:
        return ""
    said = " and ".join(signs)
    return f"training has collapsed: {said}; a lower rate (--set lr=…) or a larger batch may help"


def collapse_sentence(row: Row, spec: TrainSpec, method: Method) -> str:
    """Returns a sentence if a row of the log shows that training has collapsed, else nothing."""
    clips = spec.batch_size // (spec.accumulate * distributed.world_size())
    return sentence(signs_of_collapse(row, clips, method.supervised))


class CollapseWatch:
    """Says once that training has collapsed: when two rows of the log in succession show it."""

    def __init__(self) -> None:
        self._before = self._told = False

    def check_row(self, task: Task, row: Row, said: str) -> None:
        """Adds a note to the task if this row and the one before it show a collapse.

        Args:
            said: what :func:`collapse_sentence` returns for the row.
        """
        if said and self._before and not self._told:
            task.note(f"epoch {row['epoch']}: {said}")
            self._told = True
        self._before = bool(said)
