"""A workspace on a file system of several machines: locks, late names, two writers, a reader."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest
from patience import PATIENCE

from vidssl.base.errors import VidsslError
from vidssl.base.locks import file_lock, is_locked
from vidssl.stages import status
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace


def publish(workspace: Workspace, seed: int, name: str = "main") -> Artifact:
    """Publishes an artifact of one small file."""
    with workspace.open_run("annotations", name, {"stage": "annotate", "seed": seed}, {}) as run:
        (run.folder / "annotations.csv").write_text(f"id,label,group\n{seed},a,\n")
        return run.publish(f"{seed:064d}", {})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


# ── locks


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_file_locks_nothing_is_begun(workspace, monkeypatch, code):
    def flock(*given: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(VidsslError, match="has no file locks"):
        publish(workspace, 1)
    assert workspace.artifacts() == [] and workspace.unfinished() == []
    status.run(workspace)  # who only looks is not stopped


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_named_and_never_waited_for(tmp_path, make):
    path = tmp_path / "some.lock"
    make(path)
    assert is_locked(path) is None
    with pytest.raises((VidsslError, OSError)) as caught, file_lock(path):
        pass
    assert str(path) in str(caught.value)


# ── names that are seen late


def test_a_version_that_is_not_seen_yet_is_not_overwritten(workspace, monkeypatch):
    """Another machine has published it: this one's listing of the folder is some seconds old."""
    first, second = publish(workspace, 1), publish(workspace, 2)
    listing = Path.glob

    def late(self: Path, pattern: str):
        return (path for path in listing(self, pattern) if second.path not in (path, path.parent))

    monkeypatch.setattr(Path, "glob", late)
    third = publish(workspace, 3)
    monkeypatch.undo()
    assert [a.label for a in (first, second, third)] == [
        f"annotations/main/v00{number}" for number in (1, 2, 3)
    ]
    assert [a.run for a in workspace.artifacts()] == [a.run for a in (first, second, third)]
    assert third.sequence > second.sequence


def test_a_folder_that_goes_while_it_is_listed_is_no_error(workspace, monkeypatch):
    """Another machine has removed it, or its manifest is not seen yet."""
    publish(workspace, 1)
    gone = publish(workspace, 2)
    (gone.path / "artifact.json").unlink()
    found, problems = workspace.scan()
    assert [artifact.label for artifact in found] == ["annotations/main/v001"]
    (problem,) = problems
    assert str(gone.path) in problem


# ── two writers, and a reader


def test_two_writers_get_versions_and_numbers_of_their_own(workspace, monkeypatch):
    """Both come to publishing at the same time, each as often as possible."""
    together = threading.Barrier(4)
    rename, errors = os.rename, []

    def slow_rename(source: Path, target: Path) -> None:
        assert is_locked(workspace.root / ".lock")  # one at a time
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow_rename)

    def write(writer: int) -> None:
        own = Workspace(workspace.root)
        try:
            for turn in range(5):
                together.wait(PATIENCE)
                publish(own, 10 * writer + turn, name=f"name{turn % 2}")
        except Exception as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    found = workspace.artifacts()
    assert [artifact.sequence for artifact in found] == list(range(1, 21))
    assert {artifact.label for artifact in found} == {
        f"annotations/name{n}/v{version:03d}"
        for n, count in ((0, 12), (1, 8))
        for version in range(1, count + 1)
    }


def test_a_reader_sees_all_of_an_artifact_or_nothing(workspace, monkeypatch):
    """A reader looks at every step of publishing."""
    publish(workspace, 1)
    seen: list[int] = []

    def look() -> None:
        found, problems = Workspace(workspace.root).scan()
        assert problems == []
        for artifact in found:
            assert artifact.payload.keys() == {"annotations.csv"}
            assert (artifact.path / "annotations.csv").is_file()
        assert all(row.label for row in status.run(Workspace(workspace.root)).artifacts)
        seen.append(len(found))

    def looked_at(name: str) -> None:
        original = getattr(os, name)

        def around(*given: object, **options: object) -> object:
            look()
            done = original(*given, **options)
            look()
            return done

        monkeypatch.setattr(os, name, around)

    for name in ("rename", "replace", "fsync"):
        looked_at(name)
    publish(workspace, 2)
    assert seen == sorted(seen) and set(seen) == {1, 2} and len(seen) > 8
