"""Draws how the runs of a workspace learned, from their logs, and says which learned nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vidssl.base.errors import VidsslError
from vidssl.engine.log import LOG_FILE, Row, parse_log
from vidssl.report.svg_chart import Level, Line, line_chart
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.summaries import COLLAPSED, LITTLE

FIGURES = {  # column of the log: what it is
    "loss": "loss",
    "knn": "kNN: share of clips whose nearest other clip has their label",
    "purity": "purity: share of mined positives of the same label",
    "prototype_entropy": "entropy of the use of prototypes",
    "feature_rank": "rank of the features (a collapse takes it to 1)",
    "feature_std": "spread of the features",
    "data_wait": "share of the time that training waits for data",
    "lr": "learning rate",
}
ALWAYS = "loss"


@dataclass(frozen=True)
class TrainedRun:
    """One checkpoint and the rows of its log.

    Attributes:
        number: chooses its colour in all charts.
        doubt: a sentence where it learned little or collapsed.
        chance: the loss of an encoder that tells no clip apart; None: not known.
    """

    label: str
    number: int
    rows: list[Row]
    doubt: str | None
    chance: float | None
    clips_of_a_step: int | None

    @property
    def name(self) -> str:
        """NAME/vNNN."""
        return self.label.partition("/")[2]

    @property
    def last(self) -> Row:
        """The last row of its log."""
        return self.rows[-1] if self.rows else {}


@dataclass(frozen=True)
class Chart:
    """One figure of all runs, over steps and over time."""

    name: str
    title: str
    over_steps: Markup
    over_time: Markup | None


def trained_runs(checkpoints: Sequence[Artifact]) -> tuple[list[TrainedRun], list[str]]:
    """Returns the runs that have a log, and a sentence for each log that cannot be read."""
    found, problems = [], []
    for checkpoint in checkpoints:
        if LOG_FILE not in checkpoint.payload:
            continue
        try:
            rows = parse_log(checkpoint.files.read(LOG_FILE), checkpoint.files.where(LOG_FILE))
        except VidsslError as error:
            problems.append(str(error))
            continue
        said = [checkpoint.summary.get(key) for key in (COLLAPSED, LITTLE)]
        doubt = next((str(each) for each in said if each), None)
        found.append(
            TrainedRun(
                checkpoint.label,
                len(found),
                rows,
                doubt,
                loss_of_chance(checkpoint.recipe),
                _clips_of_a_step(checkpoint.recipe),
            )
        )
    return found, problems


def loss_of_chance(recipe: Mapping[str, object]) -> float | None:
    """Returns the loss of an encoder that tells no clip apart: ln of the number of candidates.

    None for methods whose loss is no cross entropy over one positive and a fixed set of negatives.
    """
    method, train = recipe.get("method"), recipe.get("train")
    if recipe.get("method_name") != "infonce" or not isinstance(method, Mapping):
        return None
    if method.get("negatives") != "batch":
        queue = method.get("queue")
        return math.log(1 + queue) if isinstance(queue, int) else None
    size = _clips_of_a_step(recipe)
    parts = train.get("accumulate", 1) if isinstance(train, Mapping) else 1
    return math.log(2 * size / parts - 1) if size and size > parts else None


def _clips_of_a_step(recipe: Mapping[str, object]) -> int | None:
    train = recipe.get("train")
    size = train.get("batch_size") if isinstance(train, Mapping) else None
    return size if isinstance(size, int) else None


def learning_charts(runs: Sequence[TrainedRun]) -> list[Chart]:
    """Returns a chart for each figure that some run logged."""
    charts = []
    for column, title in FIGURES.items():
        having = [run for run in runs if any(row.get(column) is not None for row in run.rows)]
        if not having:
            continue
        levels = []
        if column == ALWAYS:
            known = sorted({run.chance for run in having if run.chance is not None})
            levels = [Level(f"chance {value:.2f}", value) for value in known]
        steps = line_chart(
            f"{title}, over steps", "optimiser steps",
            [_line(run, column, _steps(run)) for run in having], levels, log=column == "lr",
        )  # fmt: skip
        timed = [run for run in having if _minutes(run) is not None]
        time = None
        if timed:
            lines = [_line(run, column, _minutes(run) or []) for run in timed]
            time = line_chart(
                f"{title}, over time", "minutes of training", lines, levels, log=column == "lr"
            )
        charts.append(Chart(column, title, steps, time))
    return charts


def _line(run: TrainedRun, column: str, xs: Sequence[float]) -> Line:
    points = [
        (x, float(value))
        for x, row in zip(xs, run.rows, strict=True)
        if (value := row.get(column)) is not None
    ]
    return Line(run.name, run.number, [x for x, _ in points], [y for _, y in points])


def _steps(run: TrainedRun) -> list[float]:
    return [float(row["step"] or 0) for row in run.rows]


def _minutes(run: TrainedRun) -> list[float] | None:
    """Returns the minutes of training up to each row; None where the log does not tell.

    A row has the samples per second since the row before. Pauses of an interrupted run do not
    count.
    """
    if run.clips_of_a_step is None or not run.rows:
        return None
    total, before, found = 0.0, 0, []
    for row in run.rows:
        step, speed = int(row["step"] or 0), row.get("samples_per_second")
        if not speed:
            return None
        total += (step - before) * run.clips_of_a_step / speed
        before = step
        found.append(total / 60)
    return found
