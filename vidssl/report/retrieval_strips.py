"""Chooses test queries, best and worst, and shows the neighbours that each run finds for them.

The figure is that of CoCLR (Han et al. 2020, figure 3), with the moments that matched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidssl.evaluation.outcomes import Answered
from vidssl.report.embedded_runs import EmbeddedRun
from vidssl.report.film_strips import FilmCutter, Strip

BEST, WORST, SHOWN, MOST_RUNS = 3, 3, 4, 4


@dataclass(frozen=True)
class FoundStrip:
    """One neighbour.

    Attributes:
        right: whether it has the query's label; None without labels.
    """

    strip: Strip
    similarity: float
    right: bool | None


@dataclass(frozen=True)
class RunsNeighbours:
    """What one run finds for a query, and the query's moment that matched the nearest."""

    run: str
    query: Strip
    found: list[FoundStrip]


@dataclass(frozen=True)
class Case:
    """One query and what each run finds for it.

    Attributes:
        why: a phrase on why it is shown.
    """

    name: str
    label: str
    why: str
    runs: list[RunsNeighbours]


def chosen_queries(answers: Sequence[Answered]) -> list[tuple[str, str]]:
    """Returns (video, why it is shown): the surest hits and the surest misses, one of a label.

    Args:
        answers: of the run that leads, with the similarities of its neighbours.
    """
    surest = sorted(answers, key=lambda each: -each.nearest[0].similarity)
    chosen = []
    for right, count, why in (
        (True, BEST, "found, most surely"),
        (False, WORST, "missed, most surely"),
    ):
        labels: set[str] = set()
        for each in surest:
            if each.right is right and each.label not in labels and len(labels) < count:
                labels.add(each.label)
                chosen.append((each.video, why))
    return chosen


def labelled_cases(
    queries: Sequence[tuple[str, str]],
    answers: Mapping[str, Sequence[Answered]],
    embedded: Mapping[str, EmbeddedRun],
    cutter: FilmCutter,
) -> list[Case]:
    """Returns the cases of a labelled split.

    Args:
        queries: as of :func:`chosen_queries`.
        answers: {name of a run: its test videos with their neighbours}.
        embedded: {name of a run: its features}, where the workspace has them.
    """
    tables = {
        run: {each.video: each for each in of_run}
        for run, of_run in list(answers.items())[:MOST_RUNS]
    }
    cases = []
    for video, why in queries:
        runs = []
        for run, table in tables.items():
            if video in table:
                nearest = [(f.video, f.similarity) for f in table[video].nearest[:SHOWN]]
                runs.append(_neighbours(run, video, nearest, embedded.get(run), cutter))
        label = cutter.labels.get(video, "")
        cases.append(Case(runs[0].query.name, label, why, runs))
    return cases


def unlabelled_cases(embedded: Sequence[EmbeddedRun], cutter: FilmCutter) -> list[Case]:
    """Returns cases where there are no labels: videos with the nearest and the farthest neighbour.

    They are chosen by the first run; the other runs answer the same queries.
    """
    first = embedded[0]
    cosines = first.means @ first.means.T
    ids = first.features.ids
    for row in range(len(ids)):
        cosines[row, row] = -2.0
    by_nearest = cosines.max(1).argsort()
    count = min(BEST, len(ids) // 2)
    rows = [(int(v), "its nearest is very near") for v in by_nearest[::-1][:count]]
    rows += [(int(v), "its nearest is far") for v in by_nearest[:count]]
    cases = []
    for row, why in rows:
        runs = []
        for run in embedded[:MOST_RUNS]:
            own = run.row_of[ids[row]]
            order = [int(v) for v in (run.means @ run.means[own]).argsort()[::-1] if v != own]
            nearest = [
                (run.features.ids[v], float(run.means[v] @ run.means[own])) for v in order[:SHOWN]
            ]
            runs.append(_neighbours(run.name, ids[row], nearest, run, cutter))
        cases.append(Case(runs[0].query.name, cutter.labels.get(ids[row], ""), why, runs))
    return cases


def _neighbours(
    name: str,
    video: str,
    nearest: Sequence[tuple[str, float]],
    run: EmbeddedRun | None,
    cutter: FilmCutter,
) -> RunsNeighbours:
    own = cutter.labels.get(video)
    moment, found = cutter.whole(video), []
    for number, (other, similarity) in enumerate(nearest):
        theirs = cutter.whole(other)
        if run is not None:
            matched, theirs = run.matching(video, other)
            moment = matched if number == 0 else moment
        label = cutter.labels.get(other)
        right = None if own is None or label is None else own == label
        found.append(FoundStrip(cutter.strip(other, theirs), similarity, right))
    return RunsNeighbours(name, cutter.strip(video, moment), found)
