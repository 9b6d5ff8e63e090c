"""Warns where runs that are compared saw other data, other numbers of steps or other starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vidssl.base.errors import VidsslError
from vidssl.engine.log import LOG_FILE, parse_log
from vidssl.report.measured_rows import LEARNED, Row
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.parent_roles import TEACHERS, role_of

MOST_NAMED = 4


def unlike_runs(rows: Sequence[Row], known: Mapping[str, Artifact]) -> list[str]:
    """Returns a sentence for each thing in which the training of the compared runs differs.

    Args:
        known: {digest: artifact} of the workspace.
    """
    runs = {
        checkpoint.digest: checkpoint
        for row in rows
        if row.kind == LEARNED
        for checkpoint in row.checkpoints
    }
    found: list[str] = []
    looked_at: list[tuple[str, Callable[[Artifact], str]]] = [
        ("data", lambda run: _data(run, known)),
        ("steps", _steps),
        ("starts", lambda run: _start(run, known)),
    ]
    for what, ask in looked_at:
        of: dict[str, list[str]] = {}
        for run in runs.values():
            of.setdefault(ask(run), []).append(run.label.partition("/")[2])
        if len(of) > 1:
            listed = "; ".join(f"{_names(names)}: {value}" for value, names in of.items())
            found.append(f"the runs were trained with different {what}, so their figures differ "
                         f"for that reason, too ({listed})")  # fmt: skip
    return found


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _data(run: Artifact, known: Mapping[str, Artifact]) -> str:
    pack = known.get(run.parents.get("pack", ""))
    if "pack" not in run.parents:
        return "not known, weights of others"
    split = run.recipe.get("split")
    name = pack.label if pack else "a pack that is gone"
    return f"{name}{f', split {split}' if split else ''}"


def _steps(run: Artifact) -> str:
    """Returns the number of optimiser steps and the clips in each, as text."""
    if LOG_FILE not in run.payload:
        return "not known"
    try:
        rows = parse_log(run.files.read(LOG_FILE), run.files.where(LOG_FILE))
    except VidsslError as error:
        return f"not known, since {error}"
    steps = rows[-1]["step"] if rows else 0
    train = run.recipe.get("train")
    batch = train.get("batch_size") if isinstance(train, Mapping) else None
    return f"{steps} steps" + (f" of {batch} clips" if batch else "")


def _start(run: Artifact, known: Mapping[str, Artifact]) -> str:
    before = [
        known[digest].label if digest in known else "a checkpoint that is gone"
        for role, digest in run.parents.items()
        if role_of(role) in TEACHERS and role_of(role) != "partner"
    ]
    if run.recipe.get("stage") == "import":
        return "published weights"
    return f"from {' and '.join(before)}" if before else "from random weights"
