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

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from vidssl.base.errors import MissingInput, VidsslError, nearest_name
from vidssl.base.files import fsync_folder, rename_to_free, write_json
from vidssl.base.locks import file_lock
from vidssl.workspace.artifacts import (
    FORMAT_VERSIONS,
    MANIFEST,
    VERSION_PATTERN,
    Artifact,
    canonical_digest,
    check_name,
)
from vidssl.workspace.run import RUN_MANIFEST, Run, is_at_work, read_run
from vidssl.workspace.sequence import (
    WORKSPACE_FILE,
    highest_sequence,
    read_next_sequence,
    write_next_sequence,
)

RUN_FOLDER = re.compile(r"\.run-[0-9a-f]{16}")
WRITTEN_ANEW = "; the command that began this run writes it anew and goes on"


class Workspace:
    """A folder of artifacts, with methods to find them. Newest means highest sequence.

    Args:
        damaged: open it even if workspace.json is damaged; for those who only look, or repair.

    Raises:
        VidsslError: it is no folder, or workspace.json is damaged or of an unknown format.
    """

    def __init__(self, root: Path | str, damaged: bool = False) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise VidsslError(f"{self.root} is a file: a workspace is a folder")
        if not damaged:
            read_next_sequence(self.root)

    def scan(
        self, kind: str | None = None, name: str | None = None
    ) -> tuple[list[Artifact], list[str]]:
        """Returns the finished artifacts, oldest first, and a sentence for each unreadable one."""
        artifacts, problems = [], []
        for path in self._folders(kind or "*", name or "*"):
            try:
                artifact = Artifact.load(path)
                if artifact.kind != path.parent.parent.name:
                    raise VidsslError(
                        f"{path} holds an artifact of kind {artifact.kind}: move it below "
                        f"{self.root / artifact.kind}"
                    )
                artifacts.append(artifact)
            except VidsslError as error:
                problems.append(str(error))
        return sorted(artifacts, key=lambda a: a.sequence), problems

    def unreadable(self) -> list[Path]:
        """Returns the folders of artifacts whose manifests cannot be read."""
        readable = {artifact.path for artifact in self.scan()[0]}
        return [path for path in self._folders("*", "*") if path not in readable]

    def _folders(self, kind: str, name: str) -> Iterator[Path]:
        """Yields the folders of finished artifacts; what has another name is ignored."""
        for path in sorted(self.root.glob(f"{kind}/{name}/v[0-9]*")):
            if VERSION_PATTERN.fullmatch(path.name) and path.parent.parent.name in FORMAT_VERSIONS:
                yield path

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
        return self.scan_unfinished(kind, name)[0]

    def scan_unfinished(
        self, kind: str | None = None, name: str | None = None
    ) -> tuple[list[Mapping[str, Any]], list[str]]:
        """Returns what :meth:`unfinished` does, and a sentence for each damaged run.json."""
        found: list[Mapping[str, Any]] = []
        problems = []
        for folder in sorted(self.root.glob(f"{kind or '*'}/{name or '*'}/.run-*")):
            if not RUN_FOLDER.fullmatch(folder.name) or not folder.is_dir():
                continue
            path = folder / RUN_MANIFEST
            try:
                found.append(vars(read_run(path)) | {"folder": str(folder)})
            except FileNotFoundError:
                if folder.is_dir() and not is_at_work(folder):  # else finished or begun just now
                    problems.append(f"{path} is missing{WRITTEN_ANEW}")
            except VidsslError as error:
                problems.append(f"{error}{WRITTEN_ANEW}")
        return found, problems

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
            VidsslError: the artifact could get no sequence number.
        """
        check_name(name)
        self._check_numbers()
        digests = {role: parent.digest for role, parent in parents.items()}
        return Run(self, kind, name, recipe, digests, new, shared, before_waiting)

    def _check_numbers(self) -> None:
        """Checks, before any work, that a number can be given that no artifact has."""
        if read_next_sequence(self.root) is None and (silent := highest_sequence(self.root)[1]):
            raise VidsslError(
                f"{self.root / WORKSPACE_FILE} is missing, and {silent[0]} tells no sequence "
                "number, which could be given twice: bring one of both back, or move that "
                "artifact's folder away"
            )

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
        """Takes the next number; one above all artifacts, whatever workspace.json says."""
        highest, _ = highest_sequence(self.root)
        number = max(read_next_sequence(self.root) or 1, highest + 1)
        write_next_sequence(self.root, number + 1)
        return number
