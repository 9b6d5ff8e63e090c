"""Damaged or hand-made manifests are one sentence each, and stop nobody from seeing the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_workspace import vidssl
from small_workspace import make_pack, small_workspace

from vidssl.base.errors import VidsslError
from vidssl.stages import status, verify
from vidssl.workspace.artifacts import MANIFEST, Artifact, canonical_digest
from vidssl.workspace.run import why_it_failed
from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three artifacts and an unfinished run; read only."""
    workspace = small_workspace(tmp_path_factory.mktemp("made") / "ws", clips=2)
    with workspace.open_run("checkpoint", "begun", {"stage": "pretrain"}, {}) as run:
        (run.folder / "resume.pt").write_text("work")
    return workspace.root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(made, tmp_path / "ws"))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


GARBAGE = {
    "empty": b"",
    "cut": b'{"vidssl": "artifact"',
    "no object": b"[1, 2]",
    "a word": b'"artifact"',
    "deep": nested(100_000).encode(),
    "deep inside": f'{{"kind": "pack", "recipe": {nested(100_000)}}}'.encode(),
    "not UTF-8": b'{"kind": "\xff\xfe"}',
    "infinite": b'{"kind": "pack", "format_version": 1, "sequence": 1e999}',
    "long number": b'{"kind": "pack", "sequence": ' + b"9" * 9000 + b"}",
}
WRONG: dict[str, dict[str, Any]] = {
    "kind is a list": {"kind": ["pack"]},
    "kind is an object": {"kind": {}},
    "version is a text": {"format_version": "1"},
    "version is a list": {"format_version": [1]},
    "sequence is a text": {"sequence": "1"},
    "sequence is no whole number": {"sequence": 1.5},
    "sequence is 0": {"sequence": 0},
    "sequence is absurd": {"sequence": 10**30},
    "digest is a number": {"digest": 1},
    "run is null": {"run": None},
    "recipe is a list": {"recipe": []},
    "parents are texts": {"parents": ["pack"]},
    "a parent is a number": {"parents": {"pack": 1}},
    "summary is a text": {"summary": "good"},
    "payload is a list": {"payload": ["a"]},
    "a file is a text": {"payload": {"a": "b"}},
    "a file has no digest": {"payload": {"a": {"bytes": 1}}},
    "a file has a negative size": {"payload": {"a": {"bytes": -1, "sha256": "0" * 64}}},
    "a file lies above": {"payload": {"../a": {"bytes": 1, "sha256": "0" * 64}}},
    "a file lies anywhere": {"payload": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
    "a field is missing": {"parents": ...},
}


def check_the_others_are_told(workspace: Workspace, broken: Path) -> None:
    with pytest.raises(VidsslError) as caught:
        Artifact.load(broken)
    assert "\n" not in str(caught.value) and str(broken) in str(caught.value)
    assert len(str(caught.value)) < 600
    found = status.run(workspace)
    assert [a.kind for a in found.artifacts] == ["annotations", "checkpoint"]
    assert found.unreadable == [str(caught.value)] and len(found.unfinished) == 1
    result = verify.run(workspace)
    assert [f.ok for f in result.findings] == [False, True, True]


@pytest.mark.parametrize("name", GARBAGE)
def test_a_damaged_manifest(workspace: Workspace, name: str) -> None:
    folder = workspace.root / "pack/main/v001"
    (folder / MANIFEST).write_bytes(GARBAGE[name])
    check_the_others_are_told(workspace, folder)
    if name == "deep":  # the command line prints what these tests look at
        assert "unreadable" in vidssl("status", workspace=workspace.root).out
        assert "Traceback" not in vidssl("verify", workspace=workspace.root, code=1).err


@pytest.mark.parametrize("name", WRONG)
def test_a_manifest_of_wrong_types(workspace: Workspace, name: str) -> None:
    folder = workspace.root / "pack/main/v001"
    body = json.loads((folder / MANIFEST).read_text()) | WRONG[name]
    body = {key: value for key, value in body.items() if key != "checksum" and value is not ...}
    (folder / MANIFEST).write_text(json.dumps(body | {"checksum": canonical_digest(body)}))
    check_the_others_are_told(workspace, folder)


def test_a_manifest_that_is_no_file(workspace: Workspace) -> None:
    for make in (Path.mkdir, os.mkfifo):
        path = workspace.root / "pack/main/v001" / MANIFEST
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        check_the_others_are_told(workspace, path.parent)


def test_an_artifact_in_the_folder_of_another_kind(workspace: Workspace) -> None:
    (workspace.root / "flow").mkdir()
    (workspace.root / "pack/main").rename(workspace.root / "flow/main")
    (sentence,) = status.run(workspace).unreadable
    assert "of kind pack" in sentence and str(workspace.root / "flow/main/v001") in sentence


def test_what_has_another_name_is_no_artifact(workspace: Workspace) -> None:
    before = [a.label for a in workspace.artifacts()]
    for name in ("v001 (copy)", "v1", "v001.bak", "v²"):
        shutil.copytree(workspace.root / "pack/main/v001", workspace.root / "pack/main" / name)
    assert [a.label for a in workspace.artifacts()] == before
    pack = make_pack(workspace, [0, 1], length=1, seed=4)
    assert pack.label == "pack/main/v002"


@pytest.mark.parametrize("summary", [{}, {"videos": [], "views": 3, "bytes": "x"}, {"R@1": {}}])
def test_a_summary_means_nothing(workspace: Workspace, summary: dict[str, Any]) -> None:
    for kind in ("flow", "view", "pack", "annotations", "features", "probe", "retrieval"):
        with workspace.open_run(kind, "bare", {}, {}) as run:
            (run.folder / "file").touch()
            run.publish("0" * 64, summary)
    found = status.run(workspace)
    assert len(found.artifacts) == 10 and not found.unreadable
    assert vidssl("status", workspace=workspace.root).code == 0
    assert vidssl("pretrain", "--pack", "bare", workspace=workspace.root, code=1).code == 1


# ── unfinished runs ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", GARBAGE)
def test_a_damaged_run_manifest_is_told_and_written_anew(workspace: Workspace, name: str) -> None:
    (path,) = workspace.root.glob("*/*/.run-*/run.json")
    whole = path.read_bytes()
    path.write_bytes(GARBAGE[name])
    found = status.run(workspace)
    assert not found.unfinished and len(found.artifacts) == 3
    (sentence,) = found.unreadable
    assert str(path) in sentence and "writes it anew" in sentence
    assert [f.artifact for f in verify.run(workspace).findings if not f.ok] == [str(path)]
    with workspace.open_run("checkpoint", "begun", {"stage": "pretrain"}, {}) as run:
        assert (run.folder / "resume.pt").read_text() == "work"
    assert path.read_bytes() == whole
    assert not status.run(workspace).unreadable


def test_a_deleted_run_manifest_is_told_and_written_anew(workspace: Workspace) -> None:
    (path,) = workspace.root.glob("*/*/.run-*/run.json")
    whole = path.read_bytes()
    path.unlink()
    said = f"{path} is missing; the command that began this run writes it anew and goes on"
    found = status.run(workspace)
    assert found.unreadable == [said] and not found.unfinished and len(found.artifacts) == 3
    assert [f.artifact for f in verify.run(workspace).findings if not f.ok] == [str(path)]
    with workspace.open_run("checkpoint", "begun", {"stage": "pretrain"}, {}) as run:
        assert (run.folder / "resume.pt").read_text() == "work"
    assert path.read_bytes() == whole
    assert not status.run(workspace).unreadable


def test_a_run_that_is_just_beginning_misses_nothing(workspace: Workspace) -> None:
    """Its folder and its lock come before its run.json."""
    (path,) = workspace.root.glob("*/*/.run-*/run.json")
    with workspace.open_run("checkpoint", "begun", {"stage": "pretrain"}, {}):
        path.unlink()
        assert not status.run(workspace).unreadable


@pytest.mark.parametrize("field", ["kind", "name", "run"])
def test_a_run_manifest_of_another_run(workspace: Workspace, field: str) -> None:
    (path,) = workspace.root.glob("*/*/.run-*/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "other"}))
    (sentence,) = status.run(workspace).unreadable
    assert "is damaged: it is of" in sentence


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"\n\n", b"x" * 10_000_000, None])
def test_why_a_run_failed_is_no_reason_to_fail(workspace: Workspace, data: bytes | None) -> None:
    (path,) = workspace.root.glob("*/*/.run-*/run.json")
    failed = path.parent.with_name(f"{path.parent.name}.failed")
    os.mkfifo(failed) if data is None else failed.write_bytes(data)
    (run,) = status.run(workspace).unfinished
    assert run.failed is None or "\n" not in run.failed
    assert vidssl("status", workspace=workspace.root).code == 0


def test_an_error_with_bytes_that_are_no_text_is_noted(workspace: Workspace) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    with (
        pytest.raises(VidsslError, match="cannot"),
        workspace.open_run("checkpoint", "begun", {"stage": "pretrain"}, {}) as run,
    ):
        raise VidsslError(f"{name} cannot be read")
    assert why_it_failed(run.folder) == "caf\\udce9.mp4 cannot be read"
