"""verify finds every flipped byte and says where it lies."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import h5py
import pytest
import safetensors.torch
import torch
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.cli.tables import verify_table
from vidssl.stages import probe, verify
from vidssl.stages.probe import ProbeOptions
from vidssl.stages.verify import Finding, VerifyOptions
from vidssl.workspace import payload
from vidssl.workspace.artifacts import MANIFEST, Artifact
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "ws")
    pack = make_pack(made, [0, 1, 0, 1, 0, 1], ("rgb", "flow"), length=9)
    words = ["train", "train", "train", "train", "test", "test"]
    table = annotate(made, pack, splits={"s": words})
    make_checkpoint(made, pack, table, split="s")
    probe.run(made, ProbeOptions(settings=(("epochs", 2),)))
    return made


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def bad(workspace: Workspace) -> dict[str, Finding]:
    return {f.artifact: f for f in verify.run(workspace).findings if not f.ok}


def test_a_sound_workspace(workspace: Workspace) -> None:
    result = verify.run(workspace)
    assert result.ok
    kinds = [f.kind for f in result.findings]
    assert kinds == ["pack", "annotations", "checkpoint", "features", "probe"]
    assert all(f.files and f.bytes for f in result.findings)
    assert json.loads(json.dumps(result.as_dict()))["ok"] is True


def test_a_flipped_frame_is_named(workspace: Workspace) -> None:
    path = next(workspace.newest("pack").path.glob("*.h5"))
    with h5py.File(path) as file:
        group = file["views/flow"]
        first = int(group["first_frame"][3])
        place = group["blobs"].id.get_offset() + int(group["offsets"][first + 5]) + 40
        video = file["videos/id"][3].decode()
    flip(path, place)
    (finding,) = bad(workspace).values()
    assert finding.artifact == "pack/main/v001"
    (problem,) = finding.problems
    assert problem == (
        f"{path} is damaged: frame 5 of view flow of video {video} does not match its checksum"
    )


def test_every_byte_of_every_file_counts(workspace: Workspace) -> None:
    for artifact in workspace.scan()[0]:
        for name, record in artifact.payload.items():
            path = artifact.path / name
            for place in {0, record["bytes"] // 3, record["bytes"] - 1}:
                flip(path, place)
                assert list(bad(workspace)) == [artifact.label], (name, place)
                flip(path, place)
    assert verify.run(workspace).ok


def test_files_that_are_missing_cut_or_foreign(workspace: Workspace) -> None:
    features = workspace.newest("features").path / "features.h5"
    whole = features.read_bytes()
    features.write_bytes(whole[:-10])
    (finding,) = bad(workspace).values()
    assert f"has {len(whole) - 10} bytes instead of {len(whole)}" in finding.problems[0]
    features.unlink()
    assert bad(workspace)["features/rgb-infonce/v001"].problems[0].endswith("is missing")
    features.write_bytes(whole)
    (features.parent / "notes.txt").write_text("mine")
    assert "does not belong" in bad(workspace)["features/rgb-infonce/v001"].problems[0]


def test_a_missing_file_is_one_problem(workspace: Workspace) -> None:
    shard = next(workspace.newest("pack").path.glob("*.h5"))
    encoder = workspace.newest("checkpoint").path / "encoder.rgb.safetensors"
    for path in (shard, encoder):
        path.unlink()
    found = bad(workspace)
    assert found["pack/main/v001"].problems == [f"{shard} is missing"]
    assert found["checkpoint/rgb-infonce/v001"].problems == [f"{encoder} is missing"]


def test_all_artifacts_are_one_task(workspace: Workspace) -> None:
    watching = Watching()
    result = verify.run(workspace, progress=watching)
    assert watching.titles == ["verify"]
    assert watching.total == watching.came == sum(f.files for f in result.findings)


def test_a_workspace_without_artifacts_is_a_sentence(tmp_path: Path) -> None:
    watching = Watching()
    shown = verify_table(verify.run(Workspace(tmp_path), progress=watching))
    assert watching.titles == []
    assert str(shown) == "there is no artifact in this workspace yet: nothing was verified"


def republish(artifact: Artifact) -> None:
    """Makes artifact.json agree with files that were changed, as a careless tool would."""
    from vidssl.base.files import file_digest, write_json
    from vidssl.workspace.artifacts import canonical_digest

    body = json.loads((artifact.path / MANIFEST).read_text())
    body.pop("checksum")
    for name, record in body["payload"].items():
        path = artifact.path / name
        record |= {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    write_json(artifact.path / MANIFEST, body | {"checksum": canonical_digest(body)})


def test_contents_are_checked_behind_the_file_digests(workspace: Workspace) -> None:
    checkpoint = workspace.newest("checkpoint")
    path = checkpoint.path / "encoder.rgb.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata()
    state = safetensors.torch.load_file(path)
    next(value for value in state.values() if value.is_floating_point())[0] = torch.nan
    safetensors.torch.save_file(state, path, header)
    pack = workspace.newest("pack")
    shard = next(pack.path.glob("*.h5"))
    with h5py.File(shard, "r+") as file:
        names = file["videos/id"][()]
        names[0], names[1] = names[1], names[0]  # two videos change names
        file["videos/id"][...] = names
    for artifact in (checkpoint, pack):
        republish(artifact)
    found = bad(workspace)
    assert "no numbers" in found["checkpoint/rgb-infonce/v001"].problems[0]
    assert "not those that its digest names" in found["pack/main/v001"].problems[0]


def test_an_unreadable_artifact_is_a_finding(workspace: Workspace) -> None:
    folder = workspace.newest("probe").path
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"epochs": 2', '"epochs": 3'))
    (finding,) = bad(workspace).values()
    assert finding.artifact == str(folder)
    assert "damaged" in finding.problems[0]


def test_what_a_failing_disk_does_not_give_is_a_finding(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = payload.file_digest

    def failing(path: Path) -> str:
        if path.suffix == ".h5":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(payload, "file_digest", failing)
    found = bad(workspace)
    assert {"pack/main/v001", "features/rgb-infonce/v001"} == set(found)
    assert found["pack/main/v001"].problems[0].endswith("cannot be read: Input/output error")


def test_one_artifact_by_any_of_its_names(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    for text in ("checkpoint/rgb-infonce/v001", "checkpoint/rgb-infonce", "rgb-infonce",
                 str(workspace.newest("checkpoint").path)):  # fmt: skip
        (finding,) = verify.run(workspace, VerifyOptions((text,))).findings
        assert finding.artifact == "checkpoint/rgb-infonce/v001"
    with pytest.raises(VidsslError, match=r"may mean annotations/main/v001, pack/main/v001"):
        verify.run(workspace, VerifyOptions(("main",)))
    with pytest.raises(VidsslError, match="no artifact named nothing"):
        verify.run(workspace, VerifyOptions(("nothing",)))
