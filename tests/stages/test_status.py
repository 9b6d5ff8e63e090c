"""The workspace's lineage: parents, what is stale and why, and the tree."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest
from cli_workspace import vidssl
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace

from vidssl.base import stored_json
from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.locks import LOOK_OF_OTHERS, file_lock, is_locked
from vidssl.cli.status_table import unfinished
from vidssl.stages import evaluate_retrieval, probe, status
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.probe import ProbeOptions
from vidssl.stages.status import ArtifactStatus, Node
from vidssl.workspace import summaries
from vidssl.workspace.artifacts import MANIFEST, Artifact
from vidssl.workspace.workspace import Workspace


def by_label(found: status.Status) -> dict[str, ArtifactStatus]:
    return {artifact.label: artifact for artifact in found.artifacts}


def labels(nodes: list[Node]) -> list:
    return [[node.artifact.label, labels(node.children)] for node in nodes]


def derive(
    workspace: Workspace, name: str, parents: dict[str, Artifact], mark: int = 0
) -> Artifact:
    """Publishes a checkpoint that is nothing but its parents."""
    with workspace.open_run("checkpoint", name, {"mark": mark}, parents) as run:
        return run.publish(f"{name}{mark}{sorted(p.digest for p in parents.values())}", {})


def test_an_absent_workspace_is_empty(tmp_path: Path) -> None:
    found = status.run(Workspace(tmp_path / "none"))
    assert found.artifacts == found.unfinished == found.unreadable == []
    assert status.tree(found) == []


def test_lineage_and_tree(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    found = status.run(workspace)
    assert [a.sequence for a in found.artifacts] == [1, 2, 3, 4, 5]
    made = by_label(found)["probe/rgb-infonce/v001"]
    assert {p.role: p.label for p in made.parents} == {
        "checkpoint": "checkpoint/rgb-infonce/v001",
        "features": "features/rgb-infonce/v001",
        "annotations": "annotations/main/v001",
    }
    assert made.summary["split"] == "split1"
    assert made.headline == "top-1 100.0 ± 14.3 % on split1"
    assert all(not a.stale for a in found.artifacts)
    assert labels(status.tree(found)) == [
        [
            "pack/main/v001",
            [
                ["annotations/main/v001", []],
                [
                    "checkpoint/rgb-infonce/v001",
                    [["features/rgb-infonce/v001", []], ["probe/rgb-infonce/v001", []]],
                ],
            ],
        ]
    ]
    json.dumps(found.as_dict())


def test_headlines_of_every_kind(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    found = {a.kind: a.headline for a in status.run(workspace).artifacts}
    assert found == {
        "pack": "30 videos, rgb",
        "annotations": "no labels",  # the fixture's summary does not tell
        "checkpoint": "infonce, tiny, 1 epoch",
        "features": "150 windows of 30 videos, width 128",
        "retrieval": "R@1 100.0 %, R@5 100.0 %, R@10 100.0 %, mAP 100.0 % on split1",
    }
    assert set(found) | {"flow", "view", "probe", "finetune"} == set(summaries.PHRASES)
    assert [summaries.size(n) for n in (12, 4_200, 198_009_826)] == ["12 B", "4.2 kB", "198 MB"]


def test_new_labels_make_what_was_trained_with_the_old_ones_stale(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    annotate(workspace, workspace.newest("pack"), splits={"other": ["train"] * 30})
    found = by_label(status.run(workspace))
    reason = "its annotations annotations/main/v001 was overtaken by annotations/main/v002"
    assert found["checkpoint/rgb-infonce/v001"].stale == [reason]
    assert "its checkpoint checkpoint/rgb-infonce/v001 is stale" in (
        found["features/rgb-infonce/v001"].stale
    )
    assert found["pack/main/v001"].stale == found["annotations/main/v002"].stale == []


def test_a_repeated_pack_of_the_same_content_overtakes_nothing(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    other = Workspace(tmp_path / "other")
    same = make_pack(other, [n % 3 for n in range(30)])
    with workspace.open_run("pack", "main", {"again": True}, {}) as run:
        for file in same.path.glob("*.h5"):
            shutil.copy(file, run.folder)
        run.publish(same.digest, same.summary)
    assert all(not a.stale for a in status.run(workspace).artifacts)


def test_a_cotrained_student_does_not_make_its_own_partner_stale(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    rgb0, flow0 = derive(workspace, "rgb-infonce", {}), derive(workspace, "flow-infonce", {})
    rgb1 = derive(workspace, "rgb-coclr", {"student": rgb0, "partner": flow0})
    flow1 = derive(workspace, "flow-coclr", {"student": flow0, "partner": rgb1})
    derive(workspace, "rgb-coclr", {"student": rgb1, "partner": flow1})
    found = status.run(workspace)
    assert all(not a.stale for a in found.artifacts)
    assert labels(status.tree(found)) == [
        [
            "checkpoint/rgb-infonce/v001",
            [["checkpoint/rgb-coclr/v001", [["checkpoint/rgb-coclr/v002", []]]]],
        ],
        ["checkpoint/flow-infonce/v001", [["checkpoint/flow-coclr/v001", []]]],
    ]
    (cotrained,) = status.tree(found)[0].children
    assert cotrained.remarks == ["partner checkpoint/flow-infonce/v001"]
    derive(workspace, "flow-infonce", {}, mark=1)  # trained anew: now it all is
    stale = {a.label: a.stale for a in status.run(workspace).artifacts if a.stale}
    assert stale["checkpoint/rgb-coclr/v001"] == [
        "its partner checkpoint/flow-infonce/v001 was overtaken by checkpoint/flow-infonce/v002"
    ]
    assert "checkpoint/rgb-coclr/v002" in stale and "checkpoint/flow-infonce/v002" not in stale


def test_parents_in_a_circle_hide_no_artifact(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    digests = {"a": "1" * 64, "b": "2" * 64, "c": "3" * 64}
    for name, parent in (("a", "b"), ("b", "a"), ("c", "c")):
        before = derive(workspace, f"parent-{name}", {})  # of which only the digest is used
        made = Artifact(**{**vars(before), "digest": digests[parent]})
        with workspace.open_run("checkpoint", name, {}, {"init": made}) as run:
            run.publish(digests[name], {})
    found = status.run(workspace)
    shown = str(labels(status.tree(found)))
    assert all(artifact.label in shown for artifact in found.artifacts)


def test_a_missing_parent_is_told(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    shutil.rmtree(workspace.newest("pack").path)
    found = status.run(workspace)
    made = by_label(found)["checkpoint/rgb-infonce/v001"]
    assert "its pack is not in the workspace any more" in made.stale
    assert [p.label for p in made.parents if p.role == "pack"] == [None]
    assert "checkpoint/rgb-infonce/v001" in str(labels(status.tree(found)))


def test_unfinished_and_unreadable(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    recipe = {"stage": "pretrain", "stream": "flow"}
    with workspace.open_run("checkpoint", "flow-infonce", recipe, {}):
        pass  # as a kill leaves it
    path = workspace.newest("checkpoint").path / MANIFEST
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    found = status.run(workspace)
    (run,) = found.unfinished
    assert (run.kind, run.name, run.stage) == ("checkpoint", "flow-infonce", "pretrain")
    (sentence,) = found.unreadable
    assert "format version 9" in sentence
    assert [a.kind for a in found.artifacts] == ["pack", "annotations"]


def test_a_workspace_with_nothing_but_an_unfinished_run_is_not_called_empty(
    tmp_path: Path,
) -> None:
    with Workspace(tmp_path).open_run("flow", "main", {}, {}):
        pass
    shown = vidssl("status", workspace=tmp_path).out
    assert "empty" not in shown and "flow/main, stopped" in shown
    nowhere = vidssl("status", workspace=tmp_path / "none").out
    assert "there is no such folder yet; begin with" in nowhere
    (tmp_path / "empty").mkdir()
    assert "empty; begin with" in vidssl("status", workspace=tmp_path / "empty").out


def test_a_running_run_is_told_from_a_stopped_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    code = (
        "import sys; from vidssl.workspace.workspace import Workspace\n"
        "with Workspace(sys.argv[1]).open_run('checkpoint', 'rgb', {}, {}):\n"
        "    print('at work', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=pipe, stdout=pipe)
    assert process.stdout is not None and process.stdout.readline() == b"at work\n"
    for _ in range(3):  # to look is no harm
        (run,) = status.run(workspace).unfinished
        assert run.running is True
    process.kill()
    process.communicate()
    (run,) = status.run(workspace).unfinished
    assert run.running is False
    with workspace.open_run("checkpoint", "rgb", {}, {}, shared=True):
        (run,) = status.run(workspace).unfinished
        assert run.running is True


def test_a_run_that_failed_is_told_from_one_that_was_stopped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def attempt(error: BaseException | None) -> str | None:
        with suppress(BaseException), workspace.open_run("checkpoint", "rgb", {}, {}) as run:
            (run.folder / "half").touch()
            (begun,) = status.run(workspace).unfinished
            assert begun.failed is None, "it is tried again"
            if error is not None:
                raise error
        (run,) = status.run(workspace).unfinished
        assert "half" in {path.name for path in Path(run.folder).iterdir()}
        assert ("tries again" in unfinished(run)) == (run.failed is not None)
        return run.failed

    assert attempt(None) is None
    assert attempt(VidsslError("training has diverged")) == "training has diverged"
    assert attempt(Interrupted("stopped", 15)) is None
    assert attempt(ValueError("a bug\nand more of it")) == "a bug"
    assert attempt(KeyboardInterrupt()) is None
    with workspace.open_run("checkpoint", "rgb", {}, {}) as run:
        run.publish("0" * 64, {})
    assert not list(tmp_path.rglob("*.failed"))


def test_a_look_at_a_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert is_locked(path) is False and not path.exists()
    path.touch()
    looking = path.open()
    fcntl.flock(looking, fcntl.LOCK_EX)  # as a look does, for a moment
    threading.Timer(LOOK_OF_OTHERS / 3, looking.close).start()
    with file_lock(path, refusal="taken"):
        assert is_locked(path) is True
    assert is_locked(path) is False


def test_a_file_system_without_locks_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    workspace = Workspace(tmp_path)
    with workspace.open_run("checkpoint", "rgb", {}, {}):
        pass
    monkeypatch.setattr("vidssl.base.locks.fcntl.flock", none)
    (run,) = status.run(workspace).unfinished
    assert run.running is None


def test_a_workspace_that_lost_its_file_gives_no_number_twice(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    before = [artifact.sequence for artifact in workspace.artifacts()]
    (workspace.root / "workspace.json").unlink()
    derive(workspace, "later", {})
    newest = workspace.newest("checkpoint")
    assert newest.name == "later" and newest.sequence == max(before) + 1
    assert derive(workspace, "last", {}).sequence == max(before) + 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '"some text"', "{"])
def test_a_damaged_workspace_file_is_told_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "workspace.json").write_text(text)
    with pytest.raises(VidsslError, match=r"workspace\.json is damaged.*: remove it, and"):
        Workspace(tmp_path)


def test_an_artifact_that_may_not_be_read_is_told_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = small_workspace(tmp_path / "ws")
    closed, real = workspace.newest("checkpoint").path / MANIFEST, stored_json.open_regular

    def open_regular(path: Path) -> BinaryIO:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(stored_json, "open_regular", open_regular)
    found = status.run(workspace)
    assert [a.kind for a in found.artifacts] == ["pack", "annotations"]
    assert found.unreadable == [f"{closed} cannot be read: Permission denied"]


def test_a_run_that_was_refused_before_it_began_is_not_unfinished(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def fail(error: Exception, leaves: str | None = None) -> int:
        with pytest.raises(type(error)), workspace.open_run("flow", "main", {}, {}) as run:
            if leaves is not None:
                (run.folder / leaves).touch()
            raise error
        return len(workspace.unfinished())

    assert fail(VidsslError("cannot be done")) == 0
    assert not list(tmp_path.glob("flow/main/.run-*"))
    assert fail(Interrupted("stopped", 15)) == 1
    assert fail(VidsslError("cannot go on")) == 1  # another process began it
    workspace.open_run("flow", "main", {}, {}).discard()
    assert fail(VidsslError("cannot go on"), leaves="resume.pt") == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_is_another_version(tmp_path: Path, seed: int) -> None:
    workspace = small_workspace(tmp_path / "ws")
    pack, table = workspace.newest("pack"), workspace.newest("annotations")
    made = make_checkpoint(workspace, pack, table, split="split1", seed=seed)
    assert by_label(status.run(workspace))[made.label].version == 2


def test_a_change_is_told_once_in_words_with_all_that_it_made_stale(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    assert status.run(workspace).changes == []
    pack = workspace.newest("pack")
    recipe = {"stage": "pack", "videos": "a" * 64}
    with workspace.open_run("pack", "main", recipe, {}) as run:
        run.publish("b" * 64, {**pack.summary, "videos": 42})
    found = status.run(workspace)
    (change,) = found.changes
    assert (change.cause, change.instead_of) == ("pack/main/v002", "pack/main/v001")
    assert change.words == "12 videos more (42 instead of 30)"
    assert change.stale == [a.label for a in found.artifacts if a.stale]
    shown = vidssl("status", workspace=workspace.root).out
    assert shown.count("12 videos more") == 1 and "overtaken" not in shown


def test_a_removed_parent_is_one_change(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    probe.run(workspace, ProbeOptions())
    shutil.rmtree(workspace.newest("pack").path)
    found = status.run(workspace)
    (change,) = found.changes
    assert change.cause is None and "pack is not in the workspace" in change.words
    assert change.stale == [a.label for a in found.artifacts if a.stale]


def test_a_hundred_runs_fit_a_screen_newest_first_and_none_is_lost(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for number in range(100):
        derive(workspace, f"run{number:02d}", {})
    lines = vidssl("status", workspace=tmp_path).out.splitlines()
    assert len(lines) < 30
    assert "checkpoint/run99/v001" in lines[2] and "checkpoint/run98/v001" in lines[3]
    assert "76 older not shown: vidssl status --all" in lines[1]
    everything = vidssl("status", "--all", workspace=tmp_path).out
    assert all(f"checkpoint/run{number:02d}/v001" in everything for number in range(100))
    assert "checkpoint/run00/v001" in vidssl("status", "--tree", workspace=tmp_path).out


def test_size_and_date_are_those_of_the_artifact(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    pack = workspace.newest("pack")
    found = by_label(status.run(workspace))[pack.label]
    files = [p for p in pack.path.rglob("*") if p.is_file() and p.name != MANIFEST]
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert found.published == (pack.path / MANIFEST).stat().st_mtime
    shown = vidssl("status", workspace=workspace.root).out
    assert summaries.size(found.bytes) in shown
