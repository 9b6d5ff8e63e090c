"""Draws `vidssl status`: one line for each artifact, kind by kind, the newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from vidssl.base.text import counted
from vidssl.workspace.run_diff import listed
from vidssl.workspace.summaries import size

if TYPE_CHECKING:  # importing these would load PyTorch
    from vidssl.stages.status import ArtifactStatus, Node, Status, UnfinishedRun
    from vidssl.workspace.changes import Change

ON_ONE_SCREEN = 24  # lines for artifacts, over all kinds
NAMED = 3  # stale artifacts that one change names


class Line:
    """One line: on a terminal its end is cut to the width, but never its first columns."""

    def __init__(self, columns: Text, rest: Text) -> None:
        self.columns, self.rest = columns, rest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yields the line; where it goes to a file or a pipe, it is whole."""
        line = self.columns + self.rest
        if console.is_terminal:
            line.truncate(max(options.max_width, self.columns.cell_len), overflow="ellipsis")
        line.no_wrap, line.overflow = True, "ignore"
        yield line


def status_list(status: Status, everything: bool = False) -> RenderableType:
    """Returns what is in a workspace: artifacts, changes that made some stale, unfinished runs.

    Args:
        everything: all artifacts; else of each kind as many of the newest as fit on a screen.
    """
    kinds = _by_kind(status.artifacts)
    most = len(status.artifacts) if everything else _most_of_a_kind([*map(len, kinds.values())])
    width = max((len(a.label) for a in status.artifacts), default=0)
    lines: list[RenderableType] = [Text(status.workspace, style="bold"), *_emptiness(status)]
    for kind, artifacts in kinds.items():
        shown = artifacts[:most]
        hidden = len(artifacts) - len(shown)
        heading = Text(kind, style="bold")
        if hidden:
            heading.append(f"  ({hidden} older not shown: vidssl status --all)", style="dim")
        lines.append(heading)
        lines += [_line(artifact, width) for artifact in shown]
        for artifact in artifacts:
            lines += [Text(f"  {fault}", style="bold red") for fault in artifact.damaged]
    lines += [_change(change) for change in status.changes]
    return Group(*lines, *_unfinished_and_unreadable(status))


def status_tree(status: Status, nodes: Sequence[Node]) -> RenderableType:
    """Returns the lineage of a workspace's artifacts as a tree, with stale ones marked."""
    drawn = Tree(Text(status.workspace, style="bold"))
    for line in _emptiness(status):
        drawn.add(line)
    for node in nodes:
        _grow(drawn, node)
    for line in _unfinished_and_unreadable(status):
        drawn.add(line)
    return Group(drawn, *[_change(change) for change in status.changes])


def _by_kind(artifacts: Sequence[ArtifactStatus]) -> dict[str, list[ArtifactStatus]]:
    """Returns the artifacts of each kind, the newest first; kinds in order of their first one."""
    kinds: dict[str, list[ArtifactStatus]] = {}
    for artifact in artifacts:
        kinds.setdefault(artifact.kind, []).insert(0, artifact)
    return kinds


def _most_of_a_kind(counts: Sequence[int]) -> int:
    """Returns how many of each kind are shown, so that all together fit on a screen."""
    most = 1
    while most < max(counts, default=0) and sum(min(most + 1, n) for n in counts) <= ON_ONE_SCREEN:
        most += 1
    return most


def _line(artifact: ArtifactStatus, width: int) -> Line:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(artifact.published))
    columns = Text("  ")
    columns.append(artifact.label.ljust(width), "yellow" if artifact.stale else "green")
    columns.append(f"  {when}  {size(artifact.bytes):>7}")
    if artifact.stale:
        columns.append("  stale", style="yellow")
    return Line(columns, Text(f"  {artifact.headline}", style="dim"))


def _change(change: Change) -> Text:
    names = change.stale[:NAMED]
    if more := len(change.stale) - len(names):
        names = [*names, f"{more} more"]
    which = f"{change.cause} replaces {change.instead_of}: {change.words}"
    what = change.words if change.cause is None else which
    count = counted(len(change.stale), "artifact")
    return Text(f"stale because {what}: {count} ({listed(names)})", style="yellow")


def _emptiness(status: Status) -> list[Text]:
    if status.artifacts or status.unfinished:
        return []
    what = "empty" if Path(status.workspace).is_dir() else "there is no such folder yet"
    return [Text(f"{what}; begin with: vidssl extract-flow VIDEOS/, or vidssl demo")]


def _unfinished_and_unreadable(status: Status) -> list[Text]:
    runs = [Text(unfinished(r), "cyan" if r.running else "yellow") for r in status.unfinished]
    return runs + [Text(f"unreadable: {each}", style="red") for each in status.unreadable]


def unfinished(run: UnfinishedRun) -> str:
    """Returns one sentence on an unfinished run: which, whether it runs, and what goes on."""
    differs = listed([f"{field} {value}" for field, value in run.differs.items()])
    what = f"{run.kind}/{run.name}" + (f" ({differs})" if differs else "")
    what += f", {run.parts}" if run.parts else ""
    if run.running:
        return f"running: {what}"
    if run.failed:
        return f"failed: {what}: {run.failed.rstrip('.')}; the same command tries again"
    state = "stopped" if run.running is False else "whether it runs cannot be told"
    return f"unfinished: {what}, {state}; the same command goes on"


def _grow(parent: Tree, node: Node) -> None:
    artifact = node.artifact
    line = Text.assemble((artifact.label, "yellow" if artifact.stale else "green"))
    line.append(f"  {artifact.headline}", style="dim")
    for remark in node.remarks:
        line.append(f"  + {remark}", style="cyan")
    if artifact.stale:
        line.append("  stale", style="yellow")
    for fault in artifact.damaged:
        line.append(f"  {fault}", style="bold red")
    branch = parent.add(line)
    for child in node.children:
        _grow(branch, child)
