"""A workspace that version 0.1 left is read, verified, resumed and gone on with by today's code.

tests/data/formats/workspace-0.1.tar.xz was written once by tests/support/build_old_workspace.py and
stays as it is. In it are finished artifacts, runs that were stopped on their way, the videos, and
what 0.1 itself went on to give. Figures of training are compared as far as processors agree on
them; whether a run goes on rather than begins anew is told by its log.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import old_workspace as old
import pytest
from cli_workspace import Result, vidssl

from vidssl.backbones import BACKBONES

# Of unfinished trainings: the epoch that they go on in, and the rows of their log that stay.
GOES_ON = {
    "checkpoint/infonce-killed": (3, 2),  # its log has a row more than was saved of it
    "checkpoint/vicc-stopped": (3, 2),
    "checkpoint/coclr-stopped": (3, 2),
    "checkpoint/killed-finetuned": (2, 1),
}
PROSE = {"headline", "notes", "failed"}  # whether it failed is compared for itself


@pytest.fixture(scope="module", autouse=True)
def backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "mite", old.Mite)
        yield


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The archive's content, somewhere else than it was written; read only."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(old.ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(unpacked) -> dict[str, Any]:
    return json.loads((unpacked / old.EXPECTED).read_text())


@pytest.fixture
def root(unpacked, tmp_path) -> Path:
    """A copy that a test may go on with."""
    return Path(shutil.copytree(unpacked, tmp_path / "moved"))


def run(root: Path, words: old.Words, code: int = 0) -> Result:
    return vidssl(*old.typed(words, root), "--json", workspace=root / "workspace", code=code)


def say(root: Path, words: old.Words) -> str:
    """Gives the words that are printed for people, without the lines of a tree."""
    shown = vidssl(*old.typed(words, root), workspace=root / "workspace").out
    return " ".join("".join(" " if sign in "│├└─" else sign for sign in shown).split())


def check_said(found: Any, wanted: Any, where: str = "") -> None:
    """All figures and names of then are those of now; something more may be, and other prose."""
    if isinstance(wanted, dict):
        assert wanted.keys() <= found.keys(), where
        for key in wanted.keys() - PROSE:
            check_said(found[key], wanted[key], f"{where}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, value in enumerate(wanted):
            check_said(found[number], value, f"{where}/{number}")
    else:
        assert found == wanted, where


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Gives size and time of all files of a workspace but locks."""
    found = [path for path in (root / "workspace").rglob("*") if path.is_file()]
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in found
        if not path.name.endswith("lock")
    }


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def check_log(
    found: list[dict[str, Any]], wanted: list[dict[str, Any]], resumed: int | None = None
) -> None:
    """The same steps at the same rates, and the same losses as far as processors agree.

    Args:
        resumed: the epoch in whose middle it went on: its row is of the steps after that alone.
    """
    for name in ("epoch", "step", "lr"):
        assert [row[name] for row in found] == [row[name] for row in wanted]
    for row, then in zip(found, wanted, strict=True):
        if row["epoch"] != resumed:
            assert row["loss"] == pytest.approx(then["loss"], rel=1e-3), row


def check_ended(root: Path, shelf: str, label: str) -> None:
    """The run is an artifact now, sound, and nothing of it is left unfinished."""
    assert run(root, ("verify", label)).json["ok"]
    begun = run(root, ("status",)).json["unfinished"]
    assert shelf not in [f"{each['kind']}/{each['name']}" for each in begun]
    assert not list((root / "workspace" / shelf).glob(".run-*/*"))


# ── what is there


def test_every_byte_is_what_its_record_says(unpacked, expected):
    check_said(run(unpacked, ("verify",)).json, expected["verify"])
    assert expected["verify"]["ok"]


def test_status_tells_of_all_as_then(unpacked, expected):
    found = run(unpacked, ("status",)).json
    check_said(found, expected["status"])
    assert not found["unreadable"]
    begun = {f"{each['kind']}/{each['name']}": each for each in found["unfinished"]}
    assert begun.keys() == {*old.UNFINISHED, old.FAILED}
    for shelf, each in begun.items():
        assert each["running"] is False
        assert (each["failed"] is None) == (shelf != old.FAILED)
    assert {each["kind"] for each in found["artifacts"]} == {
        "flow",
        "pack",
        "annotations",
        "checkpoint",
        "features",
        "probe",
        "retrieval",
        "finetune",
    }


def test_status_tells_people_how_unfinished_runs_stand(unpacked):
    told = say(unpacked, ("status",))
    for shelf in old.UNFINISHED:
        assert f"{shelf}, " in told, told
    assert told.count("stopped; the same command goes on") == len(old.UNFINISHED)
    assert f"1 of {old.PARTS} parts finished" in told
    assert "training has diverged" in told and "the same command tries again" in told


# ── what was finished


def test_a_finished_command_typed_again_finds_what_it_made(root, expected):
    before = files(root)
    for key, words in old.FINISHED.items():
        found = run(root, words).json
        for result in found if isinstance(found, list) else [found]:
            assert result["reused"], key
        check_said(found, expected["finished"][key], key)
    assert files(root) == before


# ── what was not


@pytest.mark.parametrize("parts", [old.PARTS, None])
def test_a_divided_extraction_goes_on(root, expected, parts):
    """Part by part, or all that is left by one process."""
    shelf = next(iter(old.UNFINISHED))
    words, wanted = old.UNFINISHED[shelf], expected["undisturbed"][shelf]["printed"]
    if parts is None:
        last = run(root, words)
        # Those of the finished part, and one of the part that was killed.
        assert f"done before: 4 of {old.VIDEOS} videos" in last.err
    else:
        first, second, last = (run(root, (*words, "--shard", f"{n}/{parts}")) for n in range(parts))
        assert first.json["reused"] and first.json["unfinished_parts"] == 2
        assert "done before: 1 of" in second.err and not second.json["reused"]
        assert second.json["unfinished_parts"] == 1
        assert "done before" not in last.err
    check_shards(last.json, wanted)
    check_ended(root, shelf, last.json["artifact"])
    assert run(root, words).json["reused"]


def check_shards(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Bytes depend on the versions of what decodes and encodes: what they are of does not."""
    assert found["artifact"] == wanted["artifact"] and not found["reused"]
    for name in ("videos", "quarantined", "views"):
        assert found["summary"][name] == wanted["summary"][name]


def test_a_killed_pack_goes_on(root, expected):
    shelf = "pack/killed"
    words, wanted = old.UNFINISHED[shelf], expected["undisturbed"][shelf]["printed"]
    result = run(root, words)
    assert f"done before: 3 of {old.VIDEOS} videos" in result.err
    check_shards(result.json, wanted)
    assert result.json["annotations"] == wanted["annotations"]
    check_ended(root, shelf, result.json["artifact"])
    assert run(root, words).json["reused"]


@pytest.mark.parametrize("shelf", old.TRAININGS)
def test_a_stopped_training_goes_on(root, expected, shelf):
    wanted = expected["undisturbed"][shelf]
    (begun,) = (root / "workspace").glob(f"{shelf}/.run-*/log.jsonl")
    before = log_of(begun.parent)
    result = run(root, old.UNFINISHED[shelf])
    epoch, kept = GOES_ON[shelf]
    assert f"going on from epoch {epoch} of {len(wanted['log'])}" in result.err
    label = f"{shelf}/v001"
    log = log_of(root / "workspace" / label)
    assert log[:kept] == before[:kept]  # times and all: they were not trained again
    check_log(log, wanted["log"], resumed=epoch)
    found = result.json
    if "trainings" in found:
        check_tested(found["results"], wanted["printed"]["results"])
        found, told = found["trainings"][0], wanted["printed"]["trainings"][0]
    else:
        told = wanted["printed"]
    assert found["artifact"] == told["artifact"] == label and not found["reused"]
    for name in ("method", "backbone", "epochs", "training_videos"):
        assert found["summary"][name] == told["summary"][name]
    assert found["summary"]["loss"] == pytest.approx(told["summary"]["loss"], rel=1e-3)
    check_ended(root, shelf, label)
    assert run(root, old.UNFINISHED[shelf]).json["reused"]


def check_tested(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same test; on which side of a class a video falls is a matter of the last digits."""
    for name in ("checkpoint", "stream", "pack", "split", "train_clips", "test_clips", "chance"):
        assert found[name] == wanted[name]
    assert [row["name"] for row in found["classes"]] == [row["name"] for row in wanted["classes"]]
    assert 0 <= found["top1"] <= 1


def test_what_ended_in_an_error_does_so_again(root, expected):
    said = " ".join(run(root, old.FAILING, code=1).err.split())
    assert "training has diverged: the loss is no finite number any more" in said
    check_said(run(root, ("status",)).json, expected["status"])


# ── what comes after


def test_old_checkpoints_are_evaluated_anew(root, expected):
    found, wanted = run(root, old.LATER["probe"]).json, expected["later"]["probe"]
    assert found["artifact"] == wanted["artifact"] and not found["reused"]
    check_tested(found["results"], wanted["results"])
    found, wanted = run(root, old.LATER["retrieve"]).json, expected["later"]["retrieve"]
    assert found["artifact"] == wanted["artifact"] and not found["reused"]
    for row, then in zip(found["results"]["recall"], wanted["results"]["recall"], strict=True):
        assert {**row, "recall": 0, "error": 0} == {**then, "recall": 0, "error": 0}


def test_old_features_answer_a_query(root, expected):
    (found,) = run(root, old.LATER["query"]).json["answers"]
    (wanted,) = expected["later"]["query"]["answers"]
    for neighbour, then in zip(found["neighbours"], wanted["neighbours"], strict=True):
        assert neighbour["video"] == then["video"] and neighbour["label"] == then["label"]
        assert neighbour["similarity"] == pytest.approx(then["similarity"], abs=0.01)


def test_old_checkpoints_are_cotrained(root, expected):
    found, wanted = run(root, old.LATER["cotrain"]).json, expected["later"]["cotrain"]
    assert found["artifact"] == wanted["artifact"] and not found["reused"]
    check_log(log_of(root / "workspace" / found["artifact"]), expected["later"]["log"])
    assert run(root, ("verify", found["artifact"])).json["ok"]
