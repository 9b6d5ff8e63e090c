"""Finds what made artifacts stale: each change once, in words, with all that it made stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidssl.base.text import counted
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.run_diff import differences, listed


@dataclass(frozen=True)
class Change:
    """One change that made artifacts stale.

    Attributes:
        cause: the label of the newer artifact; None: an artifact was removed.
        instead_of: the label of the artifact that it overtook; None: it is not there any more.
        words: what changed, in one phrase.
        stale: labels of the artifacts that are stale because of it, oldest first.
    """

    cause: str | None
    instead_of: str | None
    words: str
    stale: list[str] = field(default_factory=list)


def newest_by_shelf(artifacts: Sequence[Artifact]) -> dict[tuple[str, str], Artifact]:
    """Returns the newest version of each KIND/NAME."""
    return {(a.kind, a.name): a for a in artifacts}


def descends(artifact: Artifact, ancestor: Artifact, known: Mapping[str, Artifact]) -> bool:
    """Returns whether an artifact was made from `ancestor`, directly or through others."""
    frontier, seen = [artifact], set()
    while frontier:
        current = frontier.pop()
        if current.digest == ancestor.digest:
            return True
        if current.digest not in seen:
            seen.add(current.digest)
            frontier += [known[d] for d in current.parents.values() if d in known]
    return False


def find_changes(artifacts: Sequence[Artifact]) -> list[Change]:
    """Returns the changes that made artifacts stale.

    Args:
        artifacts: of the workspace, oldest first.
    """
    known = {artifact.digest: artifact for artifact in artifacts}
    newest = newest_by_shelf(artifacts)
    changes: dict[tuple[str, str], Change] = {}
    causes: dict[str, set[tuple[str, str]]] = {}  # of each artifact, by label
    for artifact in artifacts:  # parents come before children
        mine: set[tuple[str, str]] = set()
        for role, digest in artifact.parents.items():
            parent = known.get(digest)
            if parent is None:
                key = (role, digest)
                words = f"its {role} is not in the workspace any more"
                changes.setdefault(key, Change(None, None, words))
                mine.add(key)
                continue
            latest = newest[parent.kind, parent.name]
            if latest.digest != parent.digest and not descends(latest, parent, known):
                key = (latest.label, parent.label)
                if key not in changes:
                    words = in_words(parent, latest, artifacts)
                    changes[key] = Change(latest.label, parent.label, words)
                mine.add(key)
            else:
                mine |= causes.get(parent.label, set())
        causes[artifact.label] = mine
        for key, change in changes.items():
            if key in mine:
                change.stale.append(artifact.label)
    return list(changes.values())


def in_words(old: Artifact, new: Artifact, artifacts: Sequence[Artifact]) -> str:
    """Returns in which way an artifact differs from the one that it overtook, in one phrase."""
    found = [
        words
        for field_name, noun in (("videos", "video"), ("labelled", "label"), ("classes", "class"))
        if (words := _count_changed(old, new, field_name, noun))
    ]
    if old.summary.get("splits") != new.summary.get("splits"):
        found.append("other splits")
    if not found:
        for difference in differences([vars(new), vars(old)], artifacts):
            mine, other = difference.values
            if not (mine.startswith("#") or other.startswith("#")):  # digests tell people nothing
                found.append(f"{difference.field} is {mine} instead of {other}")
    return listed(found) or "other content"


def _count_changed(old: Artifact, new: Artifact, name: str, noun: str) -> str | None:
    before, now = old.summary.get(name), new.summary.get(name)
    if not isinstance(before, int) or not isinstance(now, int) or before == now:
        return None
    more = "more" if now > before else "fewer"
    return f"{counted(abs(now - before), noun)} {more} ({now} instead of {before})"
