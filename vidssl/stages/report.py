"""`vidssl report`: one HTML file that shows what the runs of a workspace learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.progress import SILENT, Progress
from vidssl.report.gathered_parts import gather
from vidssl.report.lineage import LineageRow
from vidssl.report.page import render_page
from vidssl.report.verdict_words import split_words
from vidssl.stages import status
from vidssl.stages.status import Node
from vidssl.workspace.workspace import Workspace

FILE_NAME = "vidssl-report.html"
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class ReportOptions:
    """Options of `vidssl report`.

    Attributes:
        out: the file to write; it is overwritten.
    """

    out: Path = Path(FILE_NAME)


@dataclass(frozen=True)
class ReportResult:
    """The page that was written.

    Attributes:
        verdict: its sentences.
        without: what it could not show, and why.
    """

    path: Path
    bytes: int
    verdict: list[str]
    without: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        return vars(self) | {"path": str(self.path)}


def run(workspace: Workspace, options: ReportOptions, progress: Progress = SILENT) -> ReportResult:
    """Writes the page.

    Raises:
        UsageError: the file's name is not that of a page, or it is a folder.
        VidsslError: the workspace has neither a pack nor a checkpoint, a file in it is damaged, or
            the page cannot be written.
    """
    if options.out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{options.out} is no name of a page: let it end with .html")
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder: name the file to write")
    if not options.out.parent.is_dir():
        raise VidsslError(f"there is no folder {options.out.parent} to write the page into")
    if not workspace.scan("pack")[0] and not workspace.scan("checkpoint")[0]:
        raise MissingInput(
            f"there is nothing to report in {workspace.root}: it has no pack and no checkpoint; "
            "vidssl demo makes a workspace that has all"
        )
    found = status.run(workspace)
    rows = list(lineage_rows(status.tree(found)))
    parts = gather(workspace, rows, found.unreadable, progress)
    page = render_page(parts).encode("utf-8", "backslashreplace")
    atomic_write(options.out, page)
    sentences = [words for split in parts.verdict.splits for words in split_words(split)]
    without = [sentence for pack in parts.packs for sentence in pack.without]
    return ReportResult(options.out, len(page), sentences, without)


def lineage_rows(nodes: Sequence[Node], depth: int = 0) -> Iterator[LineageRow]:
    """Yields the artifacts of a tree of lineage, each before those below it."""
    for node in nodes:
        each = node.artifact
        yield LineageRow(depth, each.label, each.headline, node.remarks, each.stale, each.damaged)
        yield from lineage_rows(node.children, depth + 1)
