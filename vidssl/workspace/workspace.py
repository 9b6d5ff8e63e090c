"""A workspace: a folder of artifacts, the rules for finding them, and the runs that make them.

    WORKSPACE/
      workspace.json             format version, next sequence number
      KIND/NAME/vNNN/            one finished artifact, never changed afterwards
        artifact.json            kind, version, sequence, digest, recipe, parents, payload
        ...                      payload files
      KIND/NAME/.run-XXXXXXXX/   the work folder of an unfinished run

A run writes its files into its work folder, and renames the folder when the artifact is complete.
docs/formats.md describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from vidssl.base.errors import MissingInput, VidsslError, nearest_name
from vidssl.base.files import fsync_folder, rename_to_free, write_json
from vidssl.base.locks import file_lock
from vidssl.version import VERSION
from vidssl.workspace.artifacts import (
    FORMAT_VERSIONS,
    MANIFEST,
    Artifact,
    canonical_digest,
    check_name,
)
from vidssl.workspace.run import RUN_MANIFEST, Run

WORKSPACE_FORMAT = 1
WORKSPACE_FILE = "workspace.json"


class Workspace:
    """A folder of artifacts, with methods to find them. Newest means highest sequence."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._check_format()

    def _check_format(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise VidsslError(f"{self.root} is a file: a workspace is a folder")
        path = self.root / WORKSPACE_FILE
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())["workspace_format"]
        except (ValueError, KeyError, TypeError):
            raise VidsslError(
                f"{path} is damaged, or not of a workspace: remove it, and the next artifact "
                "brings it back"
            ) from None
        if found != WORKSPACE_FORMAT:
            raise VidsslError(
                f"{self.root} is a workspace of format {found}, and this vidssl ({VERSION}) "
                f"reads format {WORKSPACE_FORMAT}"
            )

    def scan(
        self, kind: str | None = None, name: str | None = None
    ) -> tuple[list[Artifact], list[str]]:
        """Returns the finished artifacts, oldest first, and a sentence for each unreadable one."""
        artifacts, problems = [], []
        for path in sorted(self.root.glob(f"{kind or '*'}/{name or '*'}/v[0-9]*")):
            if path.parent.parent.name not in FORMAT_VERSIONS:
                continue
            try:
                artifacts.append(Artifact.load(path))
            except VidsslError as error:
                problems.append(str(error))
        return sorted(artifacts, key=lambda a: a.sequence), problems

    def artifacts(self, kind: str | None = None, name: str | None = None) -> list[Artifact]:
        """Returns the finished artifacts, oldest first.

        Raises:
            VidsslError: one of them is unreadable or of an unknown version.
        """
        found, problems = self.scan(kind, name)
        if problems:
            raise VidsslError(problems[0])
        return found

    def newest(
        self, kind: str, fits: Callable[[Artifact], bool] = lambda a: True
    ) -> Artifact | None:
        """Returns the newest finished artifact of `kind` that `fits`, or None."""
        return next((a for a in reversed(self.artifacts(kind)) if fits(a)), None)

    def require(
        self, kind: str, missing: str, fits: Callable[[Artifact], bool] = lambda a: True
    ) -> Artifact:
        """Returns the newest finished artifact of `kind` that `fits`.

        Raises:
            MissingInput: there is none; its text is `missing`.
        """
        found = self.newest(kind, fits)
        if found is None:
            raise MissingInput(missing)
        return found

    def by_digest(self, digest: str) -> Artifact | None:
        """Returns the newest artifact with this digest, or None."""
        return next((a for a in reversed(self.scan()[0]) if a.digest == digest), None)

    def resolve(self, kind: str, text: str) -> Artifact:
        """Returns the artifact that the user named: NAME, NAME/vNNN, KIND/NAME/vNNN or a folder.

        Raises:
            VidsslError: there is none; the sentence names the nearest.
        """
        if (Path(text) / MANIFEST).exists():
            artifact = Artifact.load(Path(text).resolve())
            if artifact.kind != kind:
                raise VidsslError(f"{text} is a {artifact.kind} artifact, not a {kind}")
            return artifact
        candidates, problems = self.scan(kind)
        for artifact in reversed(candidates):
            labels = (artifact.label, artifact.label.removeprefix(f"{kind}/"), artifact.name)
            if text.rstrip("/") in labels:
                return artifact
        if problems:  # one of these may be the named artifact
            raise VidsslError(problems[0])
        names = {n for a in candidates for n in (a.name, a.label.removeprefix(f"{kind}/"))}
        raise VidsslError(
            f"there is no {kind} named {text} in {self.root}{nearest_name(text, names)}"
        )

    def unfinished(
        self, kind: str | None = None, name: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Returns the manifests of unfinished runs, each with its "folder"."""
        found = []
        for path in sorted(self.root.glob(f"{kind or '*'}/{name or '*'}/.run-*/{RUN_MANIFEST}")):
            try:
                found.append(json.loads(path.read_text()) | {"folder": str(path.parent)})
            except (ValueError, FileNotFoundError):  # finished a moment ago
                continue
        return found

    def open_run(
        self,
        kind: str,
        name: str,
        recipe: Mapping[str, Any],
        parents: Mapping[str, Artifact],
        new: bool = False,
        shared: bool = False,
        before_waiting: Callable[[], None] | None = None,
    ) -> Run:
        """Returns the run with this recipe and these parents; arguments as in :class:`Run`.

        Raises:
            UsageError: no artifact can have that name.
        """
        check_name(name)
        digests = {role: parent.digest for role, parent in parents.items()}
        return Run(self, kind, name, recipe, digests, new, shared, before_waiting)

    def publish_folder(self, source: Path, kind: str, name: str, body: dict[str, Any]) -> Artifact:
        shelf = self.root / kind / name
        with file_lock(self.root / ".lock"):
            body["sequence"] = self._next_sequence()
            versions = [int(p.name[1:]) for p in shelf.glob("v[0-9]*") if p.name[1:].isdigit()]
            write_json(source / MANIFEST, body | {"checksum": canonical_digest(body)})
            free = count(max(versions, default=0) + 1)
            target = rename_to_free(source, (shelf / f"v{version:03d}" for version in free))
            fsync_folder(shelf)
        return Artifact.load(target)

    def _next_sequence(self) -> int:
        path = self.root / WORKSPACE_FILE
        if path.exists():
            number = json.loads(path.read_text())["next_sequence"]
        else:  # a new workspace, or one whose file was lost: no number is used twice
            number = 1 + max((artifact.sequence for artifact in self.scan()[0]), default=0)
        write_json(path, {"workspace_format": WORKSPACE_FORMAT, "next_sequence": number + 1})
        return int(number)
