"""One evaluation on each of several splits, and the mean: `--split 1,2,3`, `--splits all`.

Each split's result is an artifact as if it had been asked for alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.classification import ClassificationResult
from vidssl.evaluation.labelled_split import find_labelled_subjects
from vidssl.evaluation.options import EvaluationOptions
from vidssl.evaluation.recall import RetrievalReport, RetrievalResult
from vidssl.evaluation.split_average import SplitMean, mean_over_splits, split_names
from vidssl.workspace.workspace import Workspace

Result = TypeVar("Result", ClassificationResult, RetrievalResult)
Options = TypeVar("Options", bound=EvaluationOptions)


@dataclass(frozen=True)
class OverSplits(Generic[Result]):
    """The result of each split, and the mean of each figure that all of them have.

    Attributes:
        splits: {name of the split: its result}.
        means: {name of the figure, such as top1 or R@1: its mean}; empty for a dry run.
    """

    splits: dict[str, Result]
    means: dict[str, SplitMean]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        means = {name: asdict(mean) for name, mean in self.means.items()}
        return {"splits": {n: r.as_dict() for n, r in self.splits.items()}, "means": means}


def run_over_splits(
    stage: Callable[[Workspace, Options, Progress], Result],
    wanted: Sequence[str],
    workspace: Workspace,
    options: Options,
    progress: Progress = SILENT,
) -> OverSplits[Result]:
    """Runs an evaluation on each of several splits.

    Args:
        stage: evaluates one split.
        wanted: as for :func:`vidssl.evaluation.split_average.split_names`.

    Raises:
        UsageError: fewer than two splits.
        VidsslError: no split of one of the names, and as the stage does.
    """
    _, labelled = find_labelled_subjects(workspace, replace(options, split=None))
    names = split_names(labelled.annotations, wanted)
    found = {name: stage(workspace, replace(options, split=name), progress) for name in names}
    each = [figures_of(result) for result in found.values()]
    shared = [name for name in each[0] if all(name in figures for figures in each)]
    means = {name: mean_over_splits([figures[name] for figures in each]) for name in shared}
    return OverSplits(found, means)


def figures_of(result: ClassificationResult | RetrievalResult) -> Mapping[str, float]:
    """Returns the headline figures of a result; none of a dry run."""
    if isinstance(result, RetrievalResult):
        return {} if result.report is None else _retrieved(result.report)
    if result.report is None:
        return {}
    known = {"top1": result.report.top1, "top5": result.report.top5}
    return {name: value for name, value in known.items() if value is not None}


def _retrieved(report: RetrievalReport) -> dict[str, float]:
    figures = {f"R@{row.k}": row.recall for row in report.recall}
    if report.precision is not None:
        figures["mAP"] = report.precision.mean
    return figures
