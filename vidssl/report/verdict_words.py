"""Says in words what beats what beyond noise."""

from __future__ import annotations

from collections.abc import Sequence

from vidssl.base.text import counted
from vidssl.evaluation.paired_bootstrap import COVERED, DRAWS, FEWEST_GROUPS
from vidssl.report.mean_over_runs import MeanRow
from vidssl.report.measured_rows import BASELINE, LEARNED, PAIRED
from vidssl.report.verdict import Comparison, SplitVerdict

HOW = (
    f"Differences are over the same test videos. An interval holds {100 * COVERED:.0f} % of "
    f"{DRAWS} draws of whole groups of videos, and a difference is beyond noise where it does not "
    "hold zero. With many comparisons some are beyond noise by accident."
)


def split_words(split: SplitVerdict) -> list[str]:
    """Returns the verdict on one split, one sentence for each learned row and figure."""
    found = []
    for figure in PAIRED:
        own = [each for each in split.comparisons if each.figure == figure]
        names = [row.name for row in split.rows if row.kind == LEARNED and figure in row.outcomes]
        for name in names:
            found += _one(name, figure, [each for each in own if each.row == name], split)
        if len(names) > 1:
            found.append(_best(names, figure, split))
    learned = any(row.kind == LEARNED for row in split.rows)
    if learned and not any(row.kind == BASELINE for row in split.rows):
        found.append(
            "no baseline is measured on this split, so nothing says what learning added; measure "
            f"them with: vidssl baselines --split {split.place.split}"
        )
    return found


def _one(name: str, figure: str, own: Sequence[Comparison], split: SplitVerdict) -> list[str]:
    """Says how one row stands to chance and to the baselines."""
    against = [each for each in own if each.other is not None and not each.against_learned]
    chance = next((each for each in own if each.other is None), None)
    if chance is None:
        return []
    if chance.result.groups < FEWEST_GROUPS:
        return [f"by {figure} nothing can be said of {name}: all test videos are of one group"]
    if not chance.above:
        return [f"by {figure} {name} is not above chance beyond noise ({_points(chance)})"]
    if not against:
        return [f"by {figure} {name} is above chance ({_points(chance)})"]
    not_above = [each for each in against if not each.above]
    if not not_above:
        nearest = min(against, key=lambda each: each.result.difference)
        return [
            f"by {figure} {name} is above every baseline; the nearest is {nearest.other} "
            f"({_points(nearest)})"
        ]
    below = [each for each in not_above if each.result.beyond_noise]
    level = [each for each in not_above if not each.result.beyond_noise]
    count = len(against) - len(not_above)
    found = []
    if below:
        found.append(f"by {figure} {name} is below {_listed(below)}")
    if level:
        others = (
            f"above {count} of {counted(len(against), 'baseline')}, but not " if count else "not "
        )
        found.append(f"by {figure} {name} is {others}above {_listed(level)}: it may be noise")
    return found


def _listed(comparisons: Sequence[Comparison]) -> str:
    return ", ".join(f"{each.other} ({_points(each)})" for each in comparisons)


def _best(names: Sequence[str], figure: str, split: SplitVerdict) -> str:
    """Says which learned row is best, and from which others it cannot be told."""
    share = {row.name: row.figures[figure].share for row in split.rows if figure in row.figures}
    best = max(names, key=lambda name: share[name])
    unclear = []
    for other in names:
        each = split.between(figure, best, other)
        if other != best and (each is None or not each.above):
            unclear.append(other if each is None else f"{other} ({_points(each)})")
    others = counted(len(names) - 1, "other run")
    if not unclear:
        return f"by {figure} {best} is the best, beyond noise, of it and {others}"
    return f"by {figure} {best} is highest, but not beyond noise above {', '.join(unclear)}"


def _points(each: Comparison) -> str:
    """Returns a difference in points with its interval: "+3.2 points, 95 % from 0.6 to 5.8"."""
    result = each.result
    low, high = 100 * result.low, 100 * result.high
    shown = f"{100 * result.difference:+.1f} points, 95 % from {low:.1f} to {high:.1f}"
    return shown.replace("-", "−")


def mean_words(means: Sequence[MeanRow]) -> list[str]:
    """Returns a sentence for each mean over splits and seeds."""
    return [
        f"{each.name}: mean {each.figure} {100 * each.mean:.1f} ± {100 * each.error:.1f} % over "
        f"{counted(len(each.runs), 'run')} ({', '.join(each.runs)}), chance "
        f"{100 * each.chance:.1f} %"
        for each in means
    ]
