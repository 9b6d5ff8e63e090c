"""`vidssl status`: what is in a workspace, what came of what, and what has been overtaken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidssl.extraction.part_folders import parts_in_words
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.parents import START, role_of
from vidssl.workspace.run_diff import differences
from vidssl.workspace.summaries import headline
from vidssl.workspace.workspace import (
    Workspace,
    is_at_work,
    why_it_failed,
)

# Parents in the order in which they say where an artifact comes from: the first one that is there
# is the branch it hangs on.
MAIN_PARENT = (
    "student",
    START,
    "checkpoint",
    "pack",
    "flow",
    "features",
    "annotations",
)


@dataclass(frozen=True)
class Parent:
    """What an artifact was made from.

    Attributes:
        label: None when it is not in the workspace any more.
    """

    role: str
    digest: str
    label: str | None


@dataclass(frozen=True)
class ArtifactStatus:
    """One artifact and how it stands.

    Attributes:
        headline: what is most worth knowing of it, in one phrase.
        stale: why it has been overtaken, one sentence each; none means that it is current.
    """

    label: str
    kind: str
    name: str
    version: int
    sequence: int
    digest: str
    headline: str
    summary: Mapping[str, Any]
    parents: list[Parent]
    stale: list[str]


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that was begun: the same command would continue it, unless it is running.

    Attributes:
        running: whether a process is at work on it now; None where it cannot be told.
        failed: the error that last ended it; None where it was stopped.
        differs: {field: value} of what sets it apart from the other unfinished runs of its name
            and from the newest finished one.
        parts: where it is divided, how many of its parts are finished.
    """

    kind: str
    name: str
    stage: str | None
    folder: str
    running: bool | None = None
    failed: str | None = None
    differs: Mapping[str, str] = field(default_factory=dict)
    parts: str = ""


@dataclass(frozen=True)
class Status:
    """All that is known of a workspace.

    Attributes:
        artifacts: oldest first.
        unreadable: a sentence for each artifact that cannot be read.
    """

    workspace: str
    artifacts: list[ArtifactStatus]
    unfinished: list[UnfinishedRun]
    unreadable: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the status as plain data, for --json."""
        return asdict(self)


@dataclass(frozen=True)
class Node:
    """One line of the lineage's tree, and what hangs on it.

    Attributes:
        remarks: other parents, such as "partner checkpoint/flow-infonce/v001".
    """

    artifact: ArtifactStatus
    remarks: list[str]
    children: list[Node] = field(default_factory=list)


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(workspace: Workspace) -> Status:
    """Looks through a workspace; an empty or absent one has no artifacts."""
    artifacts, unreadable = workspace.scan()
    known = {artifact.digest: artifact for artifact in artifacts}
    newest = _newest_by_shelf(artifacts)
    reasons: dict[str, list[str]] = {}
    for artifact in artifacts:  # parents come before children
        reasons[artifact.label] = _why_stale(artifact, known, newest, reasons)
    return Status(
        workspace=str(workspace.root),
        artifacts=[_status(artifact, known, reasons[artifact.label]) for artifact in artifacts],
        unfinished=_unfinished(workspace.unfinished(), artifacts),
        unreadable=unreadable,
    )


def _unfinished(
    begun: Sequence[Mapping[str, Any]], artifacts: Sequence[Artifact]
) -> list[UnfinishedRun]:
    newest = _newest_by_shelf(artifacts)
    found = []
    for run in begun:
        shelf = (run["kind"], run["name"])
        others = [other for other in begun if (other["kind"], other["name"]) == shelf]
        others.remove(run)
        finished = [vars(newest[shelf])] if shelf in newest else []
        differs = differences([run, *others, *finished], artifacts)
        folder = Path(run["folder"])
        found.append(
            UnfinishedRun(
                kind=run["kind"],
                name=run["name"],
                stage=run.get("recipe", {}).get("stage"),
                folder=run["folder"],
                running=is_at_work(folder),
                failed=why_it_failed(folder),
                differs={difference.field: difference.values[0] for difference in differs},
                parts=parts_in_words(folder),
            )
        )
    return found


def _status(artifact: Artifact, known: Mapping[str, Artifact], stale: list[str]) -> ArtifactStatus:
    parents = [
        Parent(role, digest, known[digest].label if digest in known else None)
        for role, digest in artifact.parents.items()
    ]
    return ArtifactStatus(
        label=artifact.label,
        kind=artifact.kind,
        name=artifact.name,
        version=artifact.version,
        sequence=artifact.sequence,
        digest=artifact.digest,
        headline=headline(artifact),
        summary=dict(artifact.summary),
        parents=parents,
        stale=stale,
    )


# ── what is stale ────────────────────────────────────────────────────────────────────────────


def _newest_by_shelf(artifacts: Sequence[Artifact]) -> dict[tuple[str, str], Artifact]:
    """Returns the newest version of each KIND/NAME."""
    return {(a.kind, a.name): a for a in artifacts}


def _why_stale(
    artifact: Artifact,
    known: Mapping[str, Artifact],
    newest: Mapping[tuple[str, str], Artifact],
    reasons: Mapping[str, list[str]],
) -> list[str]:
    """Returns the reasons why an artifact has been overtaken.

    A parent is gone, or has a newer version of other content that the artifact is not itself a
    step towards (a co-trained checkpoint overtakes its own student, and is not stale for that), or
    is stale itself.
    """
    found = []
    for role, digest in artifact.parents.items():
        parent = known.get(digest)
        if parent is None:
            found.append(f"its {role} is not in the workspace any more")
            continue
        latest = newest[parent.kind, parent.name]
        if latest.digest != parent.digest and not _descends(latest, parent, known):
            found.append(f"its {role} {parent.label} was overtaken by {latest.label}")
        elif reasons.get(parent.label):
            found.append(f"its {role} {parent.label} is stale")
    return found


def _descends(artifact: Artifact, ancestor: Artifact, known: Mapping[str, Artifact]) -> bool:
    """Whether `ancestor` is among what an artifact was made from, however far back."""
    frontier, seen = [artifact], set()
    while frontier:
        current = frontier.pop()
        if current.digest == ancestor.digest:
            return True
        if current.digest not in seen:
            seen.add(current.digest)
            frontier += [known[d] for d in current.parents.values() if d in known]
    return False


# ── the tree ─────────────────────────────────────────────────────────────────────────────────


def tree(status: Status) -> list[Node]:
    """Returns the lineage as nested nodes, oldest first: each artifact below its main parent."""
    nodes = {a.label: Node(a, _remarks(a)) for a in status.artifacts}
    roots = []
    for artifact in status.artifacts:
        parent = _main_parent(artifact)
        above = nodes.get(parent.label) if parent is not None and parent.label else None
        (roots if above is None else above.children).append(nodes[artifact.label])
    return roots


def _main_parent(artifact: ArtifactStatus) -> Parent | None:
    by_role = {parent.role: parent for parent in artifact.parents if parent.label}
    present = [by_role[role] for role in (*MAIN_PARENT, *by_role) if role in by_role]
    return present[0] if present else None


def _remarks(artifact: ArtifactStatus) -> list[str]:
    """Names the parents that the tree's branches do not show."""
    main = _main_parent(artifact)
    shown = {"partner", "annotations", "checkpoint"}
    views = artifact.kind == "pack"  # of which one is the branch that it hangs on
    others = [p for p in artifact.parents if (views or role_of(p.role) in shown) and p is not main]
    return [_remark(parent) for parent in others]


def _remark(parent: Parent) -> str:
    kind = role_of(parent.role)
    if parent.label is None:
        return f"{kind} gone"
    return parent.label if parent.label.startswith(f"{kind}/") else f"{kind} {parent.label}"
