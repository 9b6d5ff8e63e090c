"""Compares runs: finds the options and inputs in which runs of the same name differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidssl.base.progress import Progress
from vidssl.base.typed_settings import flat
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.run import Run

MOST_SHOWN = 4
ABSENT = "none"

Manifest = Mapping[str, Any]  # recipe and parents of a run, as in run.json and artifact.json


@dataclass(frozen=True)
class Difference:
    """One field in which runs differ: an option, or a parent.

    Attributes:
        field: an option's name as in `--set`, or a parent's role.
        values: the value in each run, as text for the user.
    """

    field: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the difference as text, such as "epochs 2 → 3"."""
        return f"{self.field} {' → '.join(self.values)}"


def differences(runs: Sequence[Manifest], known: Iterable[Artifact]) -> list[Difference]:
    """Returns the fields in which runs differ, parents first.

    Args:
        known: artifacts whose labels are shown instead of their digests.
    """
    labels = {artifact.digest: artifact.label for artifact in known}
    fields_of = [_fields(run, labels) for run in runs]
    names = list(dict.fromkeys(name for fields in fields_of for name in fields))
    found = {name: tuple(fields.get(name, ABSENT) for fields in fields_of) for name in names}
    differing = {name: values for name, values in found.items() if len(set(values)) > 1}
    leaves = [_leaf(name) for name in differing]
    return [
        Difference(_leaf(name) if leaves.count(_leaf(name)) == 1 else name, values)
        for name, values in differing.items()
    ]


def listed(differences: Sequence[object]) -> str:
    """Returns the first four differences in one phrase, and how many more there are."""
    more = len(differences) - MOST_SHOWN
    shown = [str(each) for each in differences[:MOST_SHOWN]]
    return ", ".join([*shown, f"and {more} more"] if more > 0 else shown)


# ── messages about runs that differ ──────────────────────────────────────────────────────────


def difference_from_unfinished(run: Run) -> str:
    """Compares a run with the most similar unfinished run of its name.

    Returns:
        The differences as text, such as "epochs 2 → 3", with the unfinished run's value first;
        empty if there is no such run.
    """
    begun = run.workspace.unfinished(run.kind, run.name)
    known = run.workspace.scan()[0] if begun else []
    found = [differences([each, _manifest(run)], known) for each in begun]
    return listed(min(found, key=len, default=[]))


def nothing_to_resume(runs: Sequence[Run]) -> str:
    """Returns a sentence that says why none of these runs can be resumed.

    Args:
        runs: each is either finished or not started.
    """
    shelves = " and ".join(f"{run.kind}/{run.name}" for run in runs)
    if all(run.finished is not None for run in runs):
        return f"{shelves} is finished with these options: leave --resume away, and it is found"
    how = "leave --resume away to start one"
    for run in runs:
        if changed := difference_from_unfinished(run):
            return (
                f"the unfinished run of {run.kind}/{run.name} was begun otherwise ({changed}): "
                f"resume it with what it was begun with, or {how}"
            )
    return f"there is no unfinished run of {shelves} with this recipe and these inputs; {how}"


def report_other_runs(run: Run, progress: Progress) -> None:
    """Tells the user in which options a new run differs from an earlier run of its name.

    The earlier run is the most similar unfinished one, or else the newest finished one, if it has
    the same parents. Of a run that is finished or started itself nothing is said.
    """
    if run.finished is not None or run.started:
        return
    shelf = f"{run.kind}/{run.name}"
    if changed := difference_from_unfinished(run):
        progress.say(f"not the unfinished run of {shelf}, which is left as it is: {changed}")
        return
    finished = run.workspace.scan(run.kind, run.name)[0]
    if not finished or finished[-1].parents != run.parents:
        return  # other parents: stages tell the user the inputs anyway
    if changed := listed(differences([vars(finished[-1]), _manifest(run)], finished)):
        progress.say(f"not the run that made {finished[-1].label}: {changed}")


def _manifest(run: Run) -> Manifest:
    return {"recipe": run.recipe, "parents": run.parents}


# ── fields of a run ──────────────────────────────────────────────────────────────────────────


def _fields(run: Manifest, labels: Mapping[str, str]) -> dict[str, str]:
    """Returns {field: value} of a run's parents and recipe, as text for the user."""
    parents = {
        role: labels.get(digest, _value(digest)) for role, digest in run.get("parents", {}).items()
    }
    return parents | {name: _value(value) for name, value in flat(run.get("recipe", {}))}


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return ABSENT
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"#{value[:8]}"  # a digest
    return str(value)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
