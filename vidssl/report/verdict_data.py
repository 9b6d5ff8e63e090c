"""Turns a verdict into plain data, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from vidssl.report.measured_rows import BASELINE, FINETUNE, NEAREST, PROBE, Row, knn_in_training
from vidssl.report.verdict import Comparison, SplitVerdict, Verdict
from vidssl.report.verdict_words import mean_words, split_words

FIGURES = (NEAREST, "R@5", "R@10", "mAP", PROBE, FINETUNE)


def shown_figures(split: SplitVerdict) -> list[str]:
    """Returns the figures that were measured on a split, in the order of a table's columns."""
    return [name for name in FIGURES if any(name in row.figures for row in split.rows)]


def per_cent(share: float | None, error: float | None = None) -> str:
    """Returns a share as a percentage, with its standard error where there is one; "–" for none."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def best_baseline(split: SplitVerdict, figure: str) -> Row | None:
    """Returns the baseline that has most of a figure, None where none was measured."""
    having = [r for r in split.rows if r.kind == BASELINE and figure in r.figures]
    return max(having, key=lambda row: row.figures[figure].share, default=None)


def verdict_as_dict(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict as plain data, for --json: all figures, differences and sentences."""
    return {
        "splits": [
            {
                "pack": split.place.pack,
                "split": split.place.split,
                "split_seed": split.place.split_seed,
                "chance": dict(split.chance),
                "runs": [_row_as_dict(split, row) for row in split.rows],
                "comparisons": [_comparison_as_dict(each) for each in split.comparisons],
                "verdict": split_words(split),
                "warnings": split.warnings,
            }
            for split in verdict.splits
        ],
        "means": [vars(each) for each in verdict.means],
        "means_in_words": mean_words(verdict.means),
        "unmeasured": verdict.unmeasured,
    }


def _row_as_dict(split: SplitVerdict, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "checkpoints": [each.label for each in row.checkpoints],
        "streams": list(row.views),
        "test_videos": row.tests,
        "train_videos": row.gallery,
        "figures": {name: vars(figure) for name, figure in row.figures.items()},
        "knn_in_training": knn_in_training(row),
        "paper": split.paper.get(row.name),
    }


def _comparison_as_dict(each: Comparison) -> dict[str, Any]:
    other = each.other if each.other is not None else "chance"
    beyond = each.result.beyond_noise
    head = {"figure": each.figure, "run": each.row, "other": other}
    return head | vars(each.result) | {"beyond_noise": beyond}


# ── tables ───────────────────────────────────────────────────────────────────────────────────


def verdict_as_csv(verdict: Verdict) -> str:
    """Returns one line for each row and figure; shares from 0 to 1."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([
        "pack", "split", "split_seed", "run", "kind", "figure", "value", "error", "chance",
        "test_videos", "best_baseline", "best_baseline_value", "artifact",
    ])  # fmt: skip
    for split in verdict.splits:
        for row in split.rows:
            for name, figure in row.figures.items():
                best = best_baseline(split, name)
                beside = [best.name, best.figures[name].share] if best else ["", ""]
                table.writerow([
                    split.place.pack, split.place.split, split.place.split_seed, row.name,
                    row.kind, name, figure.share, figure.error, row.chance[name], row.tests,
                    *beside, figure.artifact,
                ])  # fmt: skip
    return text.getvalue()


def verdict_as_markdown(verdict: Verdict) -> str:
    """Returns tables and sentences as Markdown."""
    return "\n".join(_markdown_lines(verdict))


def _markdown_lines(verdict: Verdict) -> Iterator[str]:
    for split in verdict.splits:
        columns = shown_figures(split)
        yield f"### {_escaped(split.title)}\n"
        yield f"| run | {' | '.join(f'{name} %' for name in columns)} |"
        yield f"|---|{'---:|' * len(columns)}"
        for row in split.rows:
            yield f"| {_escaped(row.name)} | {' | '.join(cells(row, columns))} |"
        chance = [per_cent(split.chance.get(name)) for name in columns]
        yield f"| chance | {' | '.join(chance)} |\n"
        for sentence in split_words(split):
            yield f"- {_escaped(sentence)}"
        for name, said in split.paper.items():
            yield f"- the paper of {_escaped(name)}: {_escaped(said)}"
        for sentence in split.warnings:
            yield f"- note: {_escaped(sentence)}"
        yield ""
    for sentence in mean_words(verdict.means):
        yield f"- {_escaped(sentence)}"
    for label in verdict.unmeasured:
        yield f"- not measured: {label}"


def cells(row: Row, columns: Sequence[str], plain: Sequence[str] = ()) -> list[str]:
    """Returns a row's figures as text, in the order of the columns.

    Args:
        plain: columns without the standard error.
    """
    found = [(name, row.figures.get(name)) for name in columns]
    return [
        per_cent(each.share, None if name in plain else each.error) if each else "–"
        for name, each in found
    ]


def _escaped(text: str) -> str:
    """Returns a text in which no character means anything to Markdown."""
    special = "\\`*_{}[]<>#|"
    return "".join(f"\\{c}" if c in special else c for c in " ".join(text.split()))
