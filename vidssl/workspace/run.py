"""One run of a stage: its work folder, its lock, and how it becomes a finished artifact.

A run's work folder is `KIND/NAME/.run-XXXXXXXX/` in the workspace. It outlives a kill; when the
work is whole, it is renamed to `KIND/NAME/vNNN/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.files import write_json
from vidssl.base.locks import file_lock, is_locked
from vidssl.base.stored_json import DamagedFile, read_bytes, read_json, record
from vidssl.version import VERSION
from vidssl.workspace.artifacts import (
    FORMAT_VERSIONS,
    Artifact,
    FileRecord,
    canonical_digest,
    payload_of,
)

RUN_MANIFEST = "run.json"
FAILED = "failed"  # suffix of the file beside a work folder with the error that ended the run
LONGEST = 1000  # characters of that error


@dataclass(frozen=True)
class RunManifest:
    """The content of run.json: what an unfinished run is to make, and from what."""

    kind: str
    name: str
    run: str
    recipe: Mapping[str, Any]
    parents: Mapping[str, str]


def read_run(path: Path) -> RunManifest:
    """Returns the content of a run.json.

    Raises:
        VidsslError: it is damaged, cannot be read, or lies where another run belongs.
        FileNotFoundError: there is no such file.
    """
    found = record(RunManifest, read_json(path), path, ignore=True)
    shelf = path.parent.parent
    if (found.kind, found.name) != (shelf.parent.name, shelf.name):
        raise DamagedFile(f"{path} is damaged: it is of {found.kind}/{found.name}")
    if path.parent.name != f".run-{found.run[:16]}":
        raise DamagedFile(f"{path} is damaged: it is of another run than its folder")
    return found


class ArtifactStore(Protocol):
    """What a run needs of its workspace."""

    root: Path

    def artifacts(self, kind: str | None = None, name: str | None = None) -> list[Artifact]:
        """Returns the finished artifacts, oldest first."""

    def scan(
        self, kind: str | None = None, name: str | None = None
    ) -> tuple[list[Artifact], list[str]]:
        """Returns the finished artifacts, oldest first, and a sentence for each unreadable one."""

    def unfinished(
        self, kind: str | None = None, name: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Returns the manifests of runs that were begun and not finished, with their folder."""

    def publish_folder(self, source: Path, kind: str, name: str, body: dict[str, Any]) -> Artifact:
        """Renames a work folder to the next version of KIND/NAME, with its record in it."""


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
        workspace: ArtifactStore,
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
        if self.folder.is_symlink():  # in a workspace of others it could lead anywhere
            raise VidsslError(f"{self.folder} is a link, and no work folder: remove it")
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
        if self._created or not self._is_described():
            write_json(
                self.folder / RUN_MANIFEST,
                {"kind": self.kind, "name": self.name, "run": self.identity}
                | {"recipe": self.recipe, "parents": self.parents},
            )

    def _is_described(self) -> bool:
        """Whether run.json can be read; it is for people alone, who see it in `vidssl status`."""
        try:
            return read_run(self.folder / RUN_MANIFEST).run == self.identity
        except (VidsslError, FileNotFoundError):
            return False

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
            text = (str(error) or type(error).__name__)[:LONGEST]
            # Names of files may hold bytes that are no UTF-8.
            _beside(self.folder, FAILED).write_bytes(text.encode("utf-8", "backslashreplace"))

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
        artifact = self.workspace.publish_folder(source, self.kind, self.name, body)
        if only is None:
            self._unlink_locks()
        return artifact


def is_at_work(run_folder: Path) -> bool | None:
    """Whether a process works on an unfinished run now; None: the file system cannot tell."""
    return is_locked(_beside(run_folder, "lock"))


def why_it_failed(run_folder: Path) -> str | None:
    """Returns the error that ended an unfinished run; None: it was stopped, or still runs."""
    try:
        text = read_bytes(_beside(run_folder, FAILED), 8 * LONGEST).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except VidsslError as error:
        return f"it failed, and why cannot be told: {error}"
    return next(iter(text.splitlines()), None)


def _beside(run_folder: Path, suffix: str) -> Path:
    return run_folder.with_name(f"{run_folder.name}.{suffix}")


def _is_refusal(error: object) -> bool:
    """Whether an error means that the work is impossible, and not that it was stopped."""
    return isinstance(error, VidsslError) and not isinstance(error, Interrupted)
