"""Whether training has collapsed, told in plain words from the figures of its log.

A collapsed encoder gives nearly the same features for every clip. Some losses reward that, and some
optimisers run into it; the loss alone does not always show it.
"""

from __future__ import annotations

from collections.abc import Mapping

# Bounds that a healthy run stays well clear of; untrained networks too
# (tests/engine/test_collapse.py).
LEAST_STD = 0.05  # of unit vectors, 1 is the whole sphere
LEAST_RANK = 1.1  # 1 is a line
LEAST_USAGE = 0.02  # of prototypes, 1 is all alike
MOST_UNALIGNED, LEAST_DIFFERENCE = 0.98, 0.01  # of cosines
FEW_CLIPS = 8  # of fewer, rank and usage tell nothing


def signs_of_collapse(
    row: Mapping[str, float | int | None], clips: int, supervised: bool = False
) -> list[str]:
    """Returns what in a row of the log says that training has collapsed; empty for a healthy one.

    Args:
        clips: how many clips `feature_rank` and `prototype_usage` were taken over.
        supervised: the method learns from labels, whose few classes may well lie on a line.
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
