"""Gathers the parts of the page from the artifacts of a workspace; nothing is trained or embedded.

What cannot be shown is said on the page, with the command that makes it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.dataset.annotations import Annotations
from vidssl.evaluation import classification
from vidssl.evaluation.outcomes import Answered, read_answers
from vidssl.report.clusters_part import Clusters, clusters_part
from vidssl.report.confusion import ConfusionPart, confusion_part
from vidssl.report.embedded_runs import EmbeddedRun, embedded_runs
from vidssl.report.film_strips import FilmCutter, labels_in_words
from vidssl.report.learning_curves import learning_charts, trained_runs
from vidssl.report.lineage import LineageRow, left_out, run_recipes
from vidssl.report.measured_rows import FINETUNE, LEARNED, NEAREST, PROBE, Row
from vidssl.report.page import PackPart, PageParts
from vidssl.report.retrieval_strips import (
    Case,
    chosen_queries,
    labelled_cases,
    unlabelled_cases,
)
from vidssl.report.soft_alignment import Alignment, align
from vidssl.report.verdict import SplitVerdict, Verdict, find_verdict
from vidssl.report.view_gallery import viewed_videos
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.find_inputs import find_annotations
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace

MOST_CONFUSIONS, MOST_ALIGNMENTS = 4, 2


def gather(
    workspace: Workspace,
    lineage: Sequence[LineageRow],
    problems: Sequence[str],
    progress: Progress = SILENT,
) -> PageParts:
    """Returns all parts of the page.

    Args:
        lineage, problems: of `vidssl status`.

    Raises:
        VidsslError: a file that is shown is missing or damaged.
    """
    artifacts, _ = workspace.scan()
    verdict = find_verdict(workspace)
    runs, unreadable = trained_runs([a for a in artifacts if a.kind == "checkpoint"])
    packs = [a for a in artifacts if a.kind == "pack"]
    used = {a.parents.get("pack") for a in artifacts if a.kind in ("checkpoint", "features")}
    shown = [pack for pack in packs if pack.digest in used] or packs[-1:]
    quarantined, noted = left_out(artifacts)
    return PageParts(
        title=workspace.root.resolve().name,
        verdict=verdict,
        runs=runs,
        charts=learning_charts(runs),
        packs=[_pack_part(workspace, pack, artifacts, verdict, progress) for pack in shown],
        lineage=lineage,
        recipes=run_recipes(artifacts),
        quarantined=quarantined,
        noted=noted,
        problems=[*problems, *unreadable],
    )


def _pack_part(
    workspace: Workspace,
    pack: Artifact,
    artifacts: Sequence[Artifact],
    verdict: Verdict,
    progress: Progress,
) -> PackPart:
    splits = [split for split in verdict.splits if split.place.pack == pack.label]
    by_label = {artifact.label: artifact for artifact in artifacts}
    without: list[str] = []
    with open_shards(pack) as reader:
        ids = [reader.video_id(row) for row in range(len(reader))]
        annotations = _annotations(workspace, pack, ids)
        labels = {}
        if annotations is not None:
            labels = labels_in_words(ids, annotations.labels, annotations.classes)
        cutter = FilmCutter(reader, labels)
        embedded = embedded_runs(artifacts, pack)
        if not embedded:
            without.append(
                "no features of this pack are in the workspace, so there is no map of its videos "
                "and no matching moment; retrieve --evaluate, or retrieve with any query, "
                "computes them"
            )
        progress.say(f"report: pictures of {pack.label}")
        cases, pairs = _cases(splits, by_label, embedded, cutter)
        return PackPart(
            label=pack.label,
            cases=cases,
            confusion=_confusion(splits, by_label, cutter),
            views=viewed_videos(cutter) if len(reader) else [],
            clusters=_clusters(embedded, ids, annotations, cutter, without),
            alignments=_alignments(embedded, pairs, cutter),
            without=without,
        )


def _annotations(workspace: Workspace, pack: Artifact, ids: Sequence[str]) -> Annotations | None:
    artifact = find_annotations(workspace, pack)
    return read_annotations(artifact, ids) if artifact is not None else None


# ── retrieval ────────────────────────────────────────────────────────────────────────────────


def _cases(
    splits: Sequence[SplitVerdict],
    by_label: dict[str, Artifact],
    embedded: Sequence[EmbeddedRun],
    cutter: FilmCutter,
) -> tuple[list[Case], list[tuple[str, str]]]:
    """Returns the retrieval strips, and pairs of videos that belong together, for alignment."""
    for split in splits:
        answers = {
            row.name: read_answers(by_label[row.figures[NEAREST].artifact])
            for row in split.rows
            if row.kind == LEARNED and NEAREST in row.figures
        }
        if answers:
            leading = next(iter(answers.values()))
            queries = chosen_queries(leading)
            of_row = {row.name: run for row in split.rows if (run := _run_of(row, embedded))}
            cases = labelled_cases(queries, answers, of_row, cutter)
            return cases, _pairs(queries, leading)
    if len(embedded) and len(embedded[0].features.ids) > 2:
        run = embedded[0]
        cosines = run.means @ run.means.T
        np.fill_diagonal(cosines, -2.0)
        first = int(cosines.max(1).argmax())
        second = int(cosines[first].argmax())
        return unlabelled_cases(embedded, cutter), [
            (run.features.ids[first], run.features.ids[second])
        ]
    return [], []


def _run_of(row: Row, embedded: Sequence[EmbeddedRun]) -> EmbeddedRun | None:
    """Returns the features of the first encoder of a row."""
    for run in embedded:
        if run.view in row.views and any(
            c.digest == run.checkpoint.digest for c in row.checkpoints
        ):
            return run
    return None


def _pairs(
    queries: Sequence[tuple[str, str]], answers: Sequence[Answered]
) -> list[tuple[str, str]]:
    nearest = {each.video: each.nearest[0] for each in answers if each.right}
    return [(video, nearest[video].video) for video, _ in queries if video in nearest]


# ── the rest ─────────────────────────────────────────────────────────────────────────────────


def _confusion(
    splits: Sequence[SplitVerdict], by_label: dict[str, Artifact], cutter: FilmCutter
) -> list[ConfusionPart]:
    found = []
    for split in splits:
        for row in split.rows:
            for figure in (PROBE, FINETUNE):
                if row.kind == LEARNED and figure in row.figures and len(found) < MOST_CONFUSIONS:
                    artifact = by_label[row.figures[figure].artifact]
                    report = classification.read_report(artifact)
                    answers = read_answers(artifact)
                    found.append(confusion_part(
                        row.name, f"{figure}, {split.title}", report, answers, cutter
                    ))  # fmt: skip
    return found


def _clusters(
    embedded: Sequence[EmbeddedRun],
    ids: Sequence[str],
    annotations: Annotations | None,
    cutter: FilmCutter,
    without: list[str],
) -> Clusters | None:
    if not embedded or len(ids) < 4:
        return None
    if importlib.util.find_spec("sklearn") is None:
        without.append(
            "the map of all videos (t-SNE) and their clusters need scikit-learn, which an extra "
            "brings: pip install 'vidssl[report]'"
        )
        return None
    return clusters_part(embedded, annotations, cutter)


def _alignments(
    embedded: Sequence[EmbeddedRun], pairs: Sequence[tuple[str, str]], cutter: FilmCutter
) -> list[Alignment]:
    """Aligns pairs of videos by the first run that has windows enough of both."""
    found = []
    for a, b in pairs:
        for run in embedded:
            try:
                enough = min(len(run.moments(a)), len(run.moments(b))) > 1
            except KeyError as error:
                raise VidsslError(f"{run.artifact.label} lacks the video {error}") from None
            if enough and len(found) < MOST_ALIGNMENTS:
                found.append(align(run, a, b, cutter))
                break
    return found
