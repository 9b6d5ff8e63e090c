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
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vidssl.base.errors import Interrupted, MissingInput, VidsslError, nearest_name
from vidssl.base.files import fsync_folder, write_json
from vidssl.base.locks import file_lock, is_locked
from vidssl.version import VERSION
from vidssl.workspace.artifacts import (
    FORMAT_VERSIONS,
    MANIFEST,
    Artifact,
    FileRecord,
    canonical_digest,
    check_name,
    payload_of,
)

WORKSPACE_FORMAT = 1
RUN_MANIFEST = "run.json"
WORKSPACE_FILE = "workspace.json"
FAILED = "failed"  # suffix of the file beside a work folder with the error that ended the run
LONGEST = 1000  # characters of that error


# ── runs ─────────────────────────────────────────────────────────────────────────────────────


class Run:
    """One run of a stage: a work folder that survives a kill, or the artifact it has become.

    Its identity is a digest of its recipe and its parents' digests. So the same command continues
    an unfinished run, and finds the artifact of a finished one. As a context manager it holds the
    run's lock.

    Args:
        new: run again, even if an earlier run of the same identity is finished.
        shared: several processes work on the run, each in its own folder below the work folder.
            Steps that concern all of them are done within :meth:`exclusive`.
        before_waiting: is called if another process works on the same run, before waiting for it;
            None: this is an error.

    Attributes:
        identity: SHA-256 (hex) of recipe and parents.
        finished: the artifact, if an earlier process finished the run.
    """

    def __init__(
        self,
        workspace: Workspace,
        kind: str,
        name: str,
        recipe: Mapping[str, Any],
        parents: Mapping[str, str],
        new: bool,
        shared: bool = False,
        before_waiting: Callable[[], None] | None = None,
    ) -> None:
        self.workspace, self.kind, self.name = workspace, kind, name
        self.new, self.shared = new, shared
        self._before_waiting = before_waiting
        self.recipe, self.parents = dict(recipe), dict(parents)
        self.identity = canonical_digest({"recipe": self.recipe, "parents": self.parents})
        self.folder = workspace.root / kind / name / f".run-{self.identity[:16]}"
        self.finished: Artifact | None = None if new else self.find_finished()
        self._lock: Any = None
        self._created = False  # whether this process created the work folder

    def find_finished(self) -> Artifact | None:
        """Returns the newest artifact with this run's identity, or None."""
        same = [a for a in self.workspace.artifacts(self.kind, self.name) if a.run == self.identity]
        return same[-1] if same else None

    @property
    def started(self) -> bool:
        """Whether the work folder of an unfinished attempt exists."""
        return (self.folder / RUN_MANIFEST).exists()

    def __enter__(self) -> Run:
        if self.finished is not None:
            return self
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        wait = self._before_waiting
        held = f"another process is at work on this very run ({self.folder})"
        refusal = held if wait is None else None
        self._lock = file_lock(_beside(self.folder, "lock"), refusal, self.shared, wait)
        self._lock.__enter__()
        try:
            # Another process may have finished it before this one got the lock.
            self.finished = None if self.new else self.find_finished()
            if self.finished is None:
                self._note_start()
            elif not self.shared:
                _beside(self.folder, "lock").unlink(missing_ok=True)
        except BaseException:
            self.__exit__()  # else an error here would leave the run locked
            raise
        return self

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps the other processes of a shared run waiting, during a step that concerns all."""
        with file_lock(_beside(self.folder, "moment.lock")):
            yield

    def finished_by_another(self) -> bool:
        """Whether another process of a shared run has finished it since this one started.

        If so, an empty work folder is removed. Call it within :meth:`exclusive`.
        """
        if self.folder.exists() and (self.new or self.find_finished() is None):
            return False
        if self._is_empty():
            self.discard()  # this process created it after the run was finished
        return True

    def _note_start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        _beside(self.folder, FAILED).unlink(missing_ok=True)
        self._created = not self.started
        if self._created:
            write_json(
                self.folder / RUN_MANIFEST,
                {"kind": self.kind, "name": self.name, "run": self.identity}
                | {"recipe": self.recipe, "parents": self.parents},
            )

    def __exit__(self, kind: object = None, error: object = None, trace: object = None) -> None:
        if self._lock is not None:
            if self._created and not self.shared and _is_refusal(error) and self._is_empty():
                self.discard()  # no work was done that could be continued
            elif isinstance(error, Exception) and not isinstance(error, Interrupted):
                self._note_failure(error)
            self._lock.__exit__(None, None, None)
            self._lock = None

    def _note_failure(self, error: Exception) -> None:
        with suppress(OSError):  # such as a full disk, which may be the error itself
            _beside(self.folder, FAILED).write_text((str(error) or type(error).__name__)[:LONGEST])

    def _is_empty(self) -> bool:
        try:
            return [path.name for path in self.folder.iterdir()] == [RUN_MANIFEST]
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        """Deletes the work folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._unlink_locks()

    def _unlink_locks(self) -> None:
        for suffix in ("lock", "moment.lock", FAILED):
            _beside(self.folder, suffix).unlink(missing_ok=True)

    def publish(
        self,
        digest: str,
        summary: Mapping[str, Any],
        only: list[str] | None = None,
        known: Mapping[str, FileRecord] | None = None,
    ) -> Artifact:
        """Turns the work folder into the next version of KIND/NAME.

        Args:
            digest: identity of the content (of data, of weights).
            summary: some figures for `vidssl status`.
            only: publish copies of these files, while the run continues (a snapshot); None: publish
                the whole folder, which ends the run.
            known: {path: record} of files that need not be read again.
        """
        source = self.folder
        if only is not None:
            source = _beside(self.folder, "snapshot")
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir()
            for file in only:
                shutil.copy2(self.folder / file, source / file)
        (source / RUN_MANIFEST).unlink(missing_ok=True)
        body = {
            "vidssl": "artifact",
            "kind": self.kind,
            "format_version": FORMAT_VERSIONS[self.kind],
            "vidssl_version": VERSION,
            "digest": digest,
            "run": self.identity if only is None else f"{self.identity}:{digest[:16]}",
            "recipe": self.recipe,
            "parents": self.parents,
            "summary": dict(summary),
            "payload": payload_of(source, known or {}),
        }
        artifact = self.workspace._publish(source, self.kind, self.name, body)
        if only is None:
            self._unlink_locks()
        return artifact


def is_at_work(run_folder: Path) -> bool | None:
    """Whether a process works on an unfinished run now; None: the file system cannot tell."""
    return is_locked(_beside(run_folder, "lock"))


def why_it_failed(run_folder: Path) -> str | None:
    """Returns the error that ended an unfinished run; None: it was stopped, or still runs."""
    try:
        return _beside(run_folder, FAILED).read_text().splitlines()[0]
    except (OSError, IndexError):
        return None


def _beside(run_folder: Path, suffix: str) -> Path:
    return run_folder.with_name(f"{run_folder.name}.{suffix}")


def _is_refusal(error: object) -> bool:
    """Whether an error means that the work is impossible, and not that it was stopped."""
    return isinstance(error, VidsslError) and not isinstance(error, Interrupted)


# ── workspace ────────────────────────────────────────────────────────────────────────────────


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

    def _publish(self, source: Path, kind: str, name: str, body: dict[str, Any]) -> Artifact:
        shelf = self.root / kind / name
        with file_lock(self.root / ".lock"):
            body["sequence"] = self._next_sequence()
            versions = [int(p.name[1:]) for p in shelf.glob("v[0-9]*") if p.name[1:].isdigit()]
            target = shelf / f"v{max(versions, default=0) + 1:03d}"
            write_json(source / MANIFEST, body | {"checksum": canonical_digest(body)})
            os.rename(source, target)
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
