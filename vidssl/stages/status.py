"""`vidssl status`: lists a workspace's artifacts, their lineage, stale ones and unfinished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidssl.extraction.part_folders import parts_in_words
from vidssl.stages.repair.numbers import number_problems
from vidssl.workspace.artifacts import MANIFEST, Artifact
from vidssl.workspace.changes import Change, descends, find_changes, newest_by_shelf
from vidssl.workspace.parent_roles import START, role_of
from vidssl.workspace.run import is_at_work, why_it_failed
from vidssl.workspace.run_diff import differences
from vidssl.workspace.summaries import headline
from vidssl.workspace.workspace import Workspace

# Roles of parents, the one that says most of an artifact's origin first. In the tree an artifact
# stands below the first of these that it has.
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
    """One artifact that another was made from.

    Attributes:
        label: None if the parent is not in the workspace any more.
    """

    role: str
    digest: str
    label: str | None


@dataclass(frozen=True)
class ArtifactStatus:
    """One artifact, its parents, and whether it is stale.

    Attributes:
        headline: its most important figures, in one phrase.
        stale: the reasons why it is stale, one sentence each; none: it is current.
        damaged: one sentence for each file that is missing, of another size, or not its own. Files
            are not read for it, which :mod:`vidssl.stages.verify` does.
        published: when its manifest was written, seconds since 1970; 0 if that cannot be told.
        bytes: of its payload, as its manifest records.
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
    damaged: list[str] = field(default_factory=list)
    published: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that was started and is not finished; the same command continues it.

    Attributes:
        running: whether a process works on it now; None: the file system cannot tell.
        failed: the error that ended it last; None: it was stopped, or is running.
        differs: {field: value} of the settings in which it differs from the other unfinished runs
            of its name and from the newest finished one.
        parts: how many of its parts are finished, as text; empty for a run without parts.
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
    """The contents of a workspace.

    Attributes:
        artifacts: oldest first.
        unreadable: a sentence for each artifact that cannot be read, and for each damaged
            run.json or workspace.json.
        changes: what made artifacts stale, each once.
    """

    workspace: str
    artifacts: list[ArtifactStatus]
    unfinished: list[UnfinishedRun]
    unreadable: list[str]
    changes: list[Change] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the status as plain data, for --json."""
        return asdict(self)


@dataclass(frozen=True)
class Node:
    """One artifact in the tree of lineage, and the artifacts below it.

    Attributes:
        remarks: further parents, such as "partner checkpoint/flow-infonce/v001".
    """

    artifact: ArtifactStatus
    remarks: list[str]
    children: list[Node] = field(default_factory=list)


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(workspace: Workspace) -> Status:
    """Reads the state of a workspace; an empty or absent one has no artifacts."""
    artifacts, unreadable = workspace.scan()
    begun, damaged = workspace.scan_unfinished()
    unreadable += damaged + number_problems(workspace.root)
    known = {artifact.digest: artifact for artifact in artifacts}
    newest = newest_by_shelf(artifacts)
    reasons: dict[str, list[str]] = {}
    for artifact in artifacts:  # parents come before children
        reasons[artifact.label] = _why_stale(artifact, known, newest, reasons)
    return Status(
        workspace=str(workspace.root),
        artifacts=[_status(artifact, known, reasons[artifact.label]) for artifact in artifacts],
        unfinished=_unfinished(begun, artifacts),
        unreadable=unreadable,
        changes=find_changes(artifacts),
    )


def _unfinished(
    begun: Sequence[Mapping[str, Any]], artifacts: Sequence[Artifact]
) -> list[UnfinishedRun]:
    newest = newest_by_shelf(artifacts)
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
        damaged=[sentence for _, sentence in artifact.files.misfits()],
        published=_published(artifact),
        bytes=sum(file["bytes"] for file in artifact.payload.values()),
    )


def _published(artifact: Artifact) -> float:
    try:
        return Path(artifact.files.where(MANIFEST)).stat().st_mtime
    except OSError:  # it was moved away just now
        return 0.0


# ── stale artifacts ──────────────────────────────────────────────────────────────────────────


def _why_stale(
    artifact: Artifact,
    known: Mapping[str, Artifact],
    newest: Mapping[tuple[str, str], Artifact],
    reasons: Mapping[str, list[str]],
) -> list[str]:
    """Returns the reasons why an artifact is stale, one sentence each.

    An artifact is stale if one of its parents is gone, is stale itself, or has a newer version with
    other content. A newer version that was made from that parent does not count: a co-trained
    checkpoint replaces its own student, which makes neither of them stale.
    """
    found = []
    for role, digest in artifact.parents.items():
        parent = known.get(digest)
        if parent is None:
            found.append(f"its {role} is not in the workspace any more")
            continue
        latest = newest[parent.kind, parent.name]
        if latest.digest != parent.digest and not descends(latest, parent, known):
            found.append(f"its {role} {parent.label} was overtaken by {latest.label}")
        elif reasons.get(parent.label):
            found.append(f"its {role} {parent.label} is stale")
    return found


# ── lineage ──────────────────────────────────────────────────────────────────────────────────


def tree(status: Status) -> list[Node]:
    """Returns the lineage as a forest, oldest first: each artifact lies below its main parent."""
    nodes = {a.label: Node(a, _remarks(a)) for a in status.artifacts}
    parents: dict[str, str | None] = {}
    for artifact in status.artifacts:
        parent = _main_parent(artifact)
        above = parent.label if parent is not None else None
        # Where manifests contradict each other, one of a circle is a root: none is left out.
        parents[artifact.label] = None if _leads_to(above, artifact.label, parents) else above
    roots: list[Node] = []
    for label, above in parents.items():
        (nodes[above].children if above else roots).append(nodes[label])
    return roots


def _leads_to(label: str | None, wanted: str, parents: Mapping[str, str | None]) -> bool:
    """Whether an artifact is `wanted`, or lies below it."""
    while label is not None and label != wanted:
        label = parents.get(label)
    return label is not None


def _main_parent(artifact: ArtifactStatus) -> Parent | None:
    by_role = {parent.role: parent for parent in artifact.parents if parent.label}
    present = [by_role[role] for role in (*MAIN_PARENT, *by_role) if role in by_role]
    return present[0] if present else None


def _remarks(artifact: ArtifactStatus) -> list[str]:
    """Returns the parents that the tree does not show, one phrase each."""
    main = _main_parent(artifact)
    shown = {"partner", "annotations", "checkpoint"}
    views = artifact.kind == "pack"  # made from several views, and it lies below one of them
    others = [p for p in artifact.parents if (views or role_of(p.role) in shown) and p is not main]
    return [_remark(parent) for parent in others]


def _remark(parent: Parent) -> str:
    kind = role_of(parent.role)
    if parent.label is None:
        return f"{kind} gone"
    return parent.label if parent.label.startswith(f"{kind}/") else f"{kind} {parent.label}"
