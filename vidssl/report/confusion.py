"""Shows what a classifier takes for what: its matrix, its classes, and the pairs it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidssl.evaluation.classification import ClassificationReport, ClassRow
from vidssl.evaluation.outcomes import Answered
from vidssl.report.film_strips import FilmCutter, Strip

MOST_PAIRS, STRIPS_OF_PAIR = 5, 2
MOST_CLASSES = 60  # of a matrix that is drawn; the table of classes has all


@dataclass(frozen=True)
class ConfusedPair:
    """Test videos of one class that were taken for another.

    Attributes:
        strips: of some of them.
    """

    truth: str
    answer: str
    count: int
    of: int
    strips: list[Strip]


@dataclass(frozen=True)
class ConfusionPart:
    """One classifier's mistakes.

    Attributes:
        matrix: test videos by true class (row) and answer (column); empty where there are too many
            classes to draw.
        pairs: the most frequent mistakes.
    """

    run: str
    kind: str
    matrix: list[list[int]]
    classes: list[ClassRow]
    pairs: list[ConfusedPair]

    @property
    def columns(self) -> int:
        """How many classes the matrix has."""
        return len(self.matrix)


def confusion_part(
    run: str,
    kind: str,
    report: ClassificationReport,
    answers: Sequence[Answered],
    cutter: FilmCutter | None,
) -> ConfusionPart:
    """Returns the mistakes of one classifier.

    Args:
        kind: of the classifier, in words.
        cutter: of the pack; None: no strips are shown.
    """
    wrong: dict[tuple[str, str], list[str]] = {}
    count: dict[str, int] = {}
    for each in answers:
        count[each.label] = count.get(each.label, 0) + 1
        if not each.right:
            wrong.setdefault((each.label, each.answer), []).append(each.video)
    most = sorted(wrong.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_PAIRS]
    pairs = []
    for (truth, answer), videos in most:
        shown = videos[:STRIPS_OF_PAIR] if cutter is not None else []
        strips = [cutter.strip(v, cutter.whole(v)) for v in shown] if cutter is not None else []
        pairs.append(ConfusedPair(truth, answer, len(videos), count[truth], strips))
    matrix = report.confusion if len(report.classes) <= MOST_CLASSES else []
    return ConfusionPart(run, kind, matrix, report.classes, pairs)
