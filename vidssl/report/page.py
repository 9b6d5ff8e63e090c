"""Makes the page of `vidssl report`: gathers its parts, and fills the template.

The page holds everything: styles, pictures and scripts. A policy in its head forbids it to load
anything, and to run any script but its own, whatever names of files and labels say.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from vidssl.report.clusters_part import Clusters
from vidssl.report.confusion import ConfusionPart
from vidssl.report.learning_curves import Chart, TrainedRun
from vidssl.report.lineage import LeftOut, LineageRow, RunRecipe
from vidssl.report.measured_rows import BASELINE, knn_in_training
from vidssl.report.retrieval_strips import Case
from vidssl.report.soft_alignment import Alignment
from vidssl.report.verdict import Verdict
from vidssl.report.verdict_data import best_baseline, per_cent, shown_figures
from vidssl.report.verdict_words import HOW, mean_words, split_words
from vidssl.report.view_gallery import ViewedVideo
from vidssl.version import VERSION

STYLE, SCRIPT, TEMPLATE = "page.css", "page.js", "page.html"


@dataclass(frozen=True)
class PackPart:
    """What the page shows of one pack.

    Attributes:
        cases: retrieval strips.
        without: sentences on what could not be shown, and why.
    """

    label: str
    cases: Sequence[Case]
    confusion: Sequence[ConfusionPart]
    views: Sequence[ViewedVideo]
    clusters: Clusters | None
    alignments: Sequence[Alignment]
    without: Sequence[str]


@dataclass(frozen=True)
class PageParts:
    """All that the page shows.

    Attributes:
        title: names the workspace.
        problems: sentences on what is damaged in the workspace.
    """

    title: str
    verdict: Verdict
    runs: Sequence[TrainedRun]
    charts: Sequence[Chart]
    packs: Sequence[PackPart]
    lineage: Sequence[LineageRow]
    recipes: Sequence[RunRecipe]
    quarantined: Sequence[LeftOut]
    noted: Sequence[LeftOut]
    problems: Sequence[str]


def render_page(parts: PageParts) -> str:
    """Returns the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vidssl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = per_cent
    script = _text(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        parts=parts,
        splits=[_split_part(split) for split in parts.verdict.splits],
        means=mean_words(parts.verdict.means),
        how=HOW,
        version=VERSION,
        style=Markup(_text(STYLE)),
        script=Markup(script),
        script_digest=digest,
    )


def _split_part(split: Any) -> Mapping[str, Any]:
    columns = shown_figures(split)
    return {
        "split": split,
        "columns": columns,
        "words": split_words(split),
        "best": {name: best_baseline(split, name) for name in columns},
        "is_baseline": {row.name: row.kind == BASELINE for row in split.rows},
        "knn": {row.name: knn_in_training(row) for row in split.rows},
        "has_knn": any(knn_in_training(row) is not None for row in split.rows),
    }


def _text(name: str) -> str:
    return resources.files("vidssl.report").joinpath("templates", name).read_text("utf-8")
