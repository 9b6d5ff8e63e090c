"""What is read of an artifact is what was written: else one sentence, and no result of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_workspace import SMALL, vidssl
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.base.errors import VidsslError
from vidssl.evaluation import classification, feature_cache, recall
from vidssl.shards import open_shards
from vidssl.stages import evaluate_retrieval, probe
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.probe import ProbeOptions
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace

SOURCE = Path(probe.__file__).parents[1]
LABELS = [0, 1] * 6
WORDS = ["train"] * 8 + ["test"] * 4
IN_TWO = 200_000  # bytes of a shard: half of the pack


def one_sentence(action: Callable[[], object]) -> str:
    with pytest.raises(VidsslError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose pack has two shards, and another pack beside it; read only."""
    folder = tmp_path_factory.mktemp("made")
    workspace = Workspace(folder / "ws")
    make_pack(workspace, LABELS, ("rgb", "flow"), name="other", seed=5, shard_bytes=IN_TWO)
    pack = make_pack(workspace, LABELS, ("rgb", "flow"), shard_bytes=IN_TWO)
    assert len(list(pack.path.glob("shard-*.h5"))) >= 2
    table = annotate(workspace, pack, splits={"s": WORDS})
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, pack, table, stream, split="s")
    probe.run(workspace, ProbeOptions(settings=(("epochs", 2),)))
    evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    return workspace.root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(made, tmp_path / "ws"))


# ── a set of shards ──────────────────────────────────────────────────────────────────────────

DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda shard, foreign: shard.unlink(),
    "extra": lambda shard, foreign: shutil.copy(foreign, shard.with_name("shard-0099.h5")),
    "foreign": lambda shard, foreign: shutil.copy(foreign, shard),
    "twice": lambda shard, foreign: shutil.copy(shard.with_name("shard-0000.h5"), shard),
    "swapped": lambda shard, foreign: swap(shard, shard.with_name("shard-0000.h5")),
}
COMMANDS = {
    "pretrain": ("pretrain", "--stream", "rgb", "--pack", "main", "--name", "late", *SMALL),
    "cotrain": ("cotrain", "--stream", "rgb", "--k", 1, *SMALL),
    "probe": ("probe", "--set", "epochs=1"),
    "retrieve": ("retrieve", "--evaluate"),
    "baselines": ("baselines", "--pack", "main"),
}


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_set_of_shards_that_is_not_the_published_one_is_refused(
    workspace: Workspace, damage: str
) -> None:
    pack, other = workspace.resolve("pack", "main"), workspace.resolve("pack", "other")
    DAMAGES[damage](pack.path / "shard-0001.h5", other.path / "shard-0001.h5")
    before = [artifact.label for artifact in workspace.artifacts()]
    for words in COMMANDS.values():
        result = vidssl(*words, workspace=workspace.root, code=1)
        (said,) = [line for line in result.err.splitlines() if line.startswith("vidssl: ")]
        assert "pack/main/v001" in said and str(pack.path) in said, (words, said)
        assert "Traceback" not in result.err + result.out
    assert [artifact.label for artifact in workspace.artifacts()] == before
    assert not workspace.unfinished()
    shown = vidssl("status", "--json", workspace=workspace.root).json["artifacts"]
    told = {each["label"]: " ".join(each["damaged"]) for each in shown if each["damaged"]}
    assert list(told) == ["pack/main/v001"] and str(pack.path) in told["pack/main/v001"]
    found = vidssl("verify", "pack/main/v001", "--json", workspace=workspace.root, code=1).json
    assert found["artifacts"][0]["problems"]


def test_a_foreign_shard_of_the_same_size_is_told_by_its_ids(workspace: Workspace) -> None:
    pack = workspace.resolve("pack", "main")
    shard, other = pack.path / "shard-0001.h5", workspace.resolve("pack", "other")
    pretended = dict(pack.payload)
    shutil.copy(other.path / shard.name, shard)
    pretended[shard.name] = {**pretended[shard.name], "bytes": shard.stat().st_size}
    lying = Artifact(**{**vars(pack), "payload": pretended})
    said = one_sentence(lambda: open_shards(lying))
    assert "are not those that its digest names" in said and str(pack.path) in said


def test_parameters_and_lengths_are_compared_with_the_manifest(workspace: Workspace) -> None:
    pack = workspace.resolve("pack", "main")
    views = {**pack.recipe["views"], "flow": {**pack.recipe["views"]["flow"], "bound": 99.0}}
    other = Artifact(**{**vars(pack), "recipe": {**pack.recipe, "views": views}})
    assert "other parameters of view flow" in one_sentence(lambda: open_shards(other))


def test_a_shard_that_comes_back_brings_back_the_same_results(workspace: Workspace) -> None:
    before = probe.run(workspace, ProbeOptions(settings=(("epochs", 2),))).as_dict()
    shard = workspace.resolve("pack", "main").path / "shard-0001.h5"
    shard.rename(workspace.root / "aside")
    one_sentence(lambda: probe.run(workspace, ProbeOptions(seed=3)))
    (workspace.root / "aside").rename(shard)
    assert probe.run(workspace, ProbeOptions(settings=(("epochs", 2),))).as_dict() == before


# ── small files, and those that are read whole ───────────────────────────────────────────────


def read_all(workspace: Workspace) -> dict[str, Callable[[], object]]:
    """What reads each file: {file: a reader}."""
    newest = workspace.newest
    table, features, found = newest("annotations"), newest("features"), newest("retrieval")
    checkpoint, probed = newest("checkpoint"), newest("probe")
    assert table and features and found and checkpoint and probed
    return {
        "annotations/main/v001/annotations.csv": lambda: read_annotations(table, []),
        "features/rgb-infonce/v001/features.h5": lambda: feature_cache.load_features(features),
        "retrieval/rgb-infonce/v001/results.json": lambda: recall.read_report(found),
        "retrieval/rgb-infonce/v001/neighbours.csv": lambda: found.files.read("neighbours.csv"),
        "probe/rgb-infonce/v001/results.json": lambda: classification.read_report(probed),
        "probe/rgb-infonce/v001/predictions.csv": lambda: probed.files.read("predictions.csv"),
        "checkpoint/flow-infonce/v001/encoder.flow.safetensors": lambda: checkpoint_encoder(
            checkpoint, "flow"
        ),
    }


def test_what_was_changed_is_refused_at_every_read(workspace: Workspace) -> None:
    for name, read in read_all(workspace).items():
        read()
        path = workspace.root / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        damages = [
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            whole[:-1],
            whole + b"\n",
            b"",
            None,
        ]
        for data in damages:
            path.unlink() if data is None else path.write_bytes(data)
            said = one_sentence(read)
            label = "/".join(Path(name).parts[:3])
            assert str(path) in said and label in said and "verify --repair" in said
        path.write_bytes(whole)
        read()


def test_edited_labels_and_results_are_not_believed(workspace: Workspace) -> None:
    table = workspace.root / "annotations/main/v001/annotations.csv"
    text = table.read_text()
    table.write_text(text.replace(",test", ",tran"))  # as many bytes
    for words in COMMANDS.values():
        assert "annotations.csv" in vidssl(*words, workspace=workspace.root, code=1).err
    table.write_text(text)
    results = workspace.root / "probe/rgb-infonce/v001/results.json"
    results.write_text(re.sub(r'"top1": [\d.]+', '"top1": 0.97', results.read_text()))
    repeated = vidssl("probe", "--set", "epochs=2", workspace=workspace.root, code=1)
    assert "results.json" in repeated.err and "97" not in repeated.out


def test_only_the_header_of_a_checkpoint_needs_no_digest(workspace: Workspace) -> None:
    checkpoint = workspace.newest("checkpoint")
    assert checkpoint is not None
    path = checkpoint.path / "encoder.flow.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "bytes instead of" in one_sentence(lambda: checkpoint_spec(checkpoint, "flow"))


def test_features_of_other_videos_are_refused(workspace: Workspace) -> None:
    from dataclasses import replace

    from vidssl.evaluation import feature_file
    from vidssl.evaluation.evaluated_encoders import find_subject
    from vidssl.evaluation.features import WindowProtocol

    artifact = workspace.newest("features")
    assert artifact is not None
    found = feature_cache.load_features(artifact)
    renamed = replace(found, ids=(*found.ids[:-1], "z#0"))
    feature_file.save_features(renamed, artifact.path / "features.h5")
    republish(artifact)
    subject = find_subject(workspace, None, "rgb", "pack/main/v001")
    said = one_sentence(lambda: feature_cache.features_of(workspace, subject, WindowProtocol()))
    assert "is not of the videos of pack/main/v001" in said
    twice = replace(found, ids=(*found.ids[:-1], found.ids[0]))
    feature_file.save_features(twice, artifact.path / "features.h5")
    assert "twice" in one_sentence(
        lambda: feature_file.load_features(artifact.path / "features.h5")
    )


def republish(artifact: Artifact) -> None:
    """Makes artifact.json agree with files that were changed, as a careless tool would."""
    import json

    from vidssl.base.files import write_json
    from vidssl.workspace.artifacts import MANIFEST, canonical_digest, file_record

    body = json.loads((artifact.path / MANIFEST).read_text())
    body.pop("checksum")
    body["payload"] = {name: file_record(artifact.path / name) for name in body["payload"]}
    write_json(artifact.path / MANIFEST, body | {"checksum": canonical_digest(body)})


# ── one read path ────────────────────────────────────────────────────────────────────────────

# Names of what has a `.path` and is no artifact, in files that import artifacts.
NO_ARTIFACTS = {"source", "own", "folder", "self", "place", "p", "part", "shard", "weights"}
OPENED = (
    r"(\w+)(?:\(\w+\))?\.(?:path|files\.folder)(?:\s*/|\.(?:joinpath|r?glob|iterdir|open|read))"
)
# Readers by path, each used by one function that has checked the file.
BY_PATH = {
    r"\bShardReader\(": {
        "shards/published.py",
        "extraction/gathering.py",
        "extraction/shard_job.py",
        "stages/verify.py",
    },
    r"\bAnnotations\.load\(": {"stages/pack.py"},
    r"(?<!feature_file)\.load_features\(|\b(?:read_quarantine|_readable_rows)\(": {
        "extraction/quarantine.py",
        "extraction/shard_job.py",
    },
}


def test_nothing_but_the_read_path_opens_files_of_artifacts() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name, text = path.relative_to(SOURCE).as_posix(), path.read_text()
        if name.startswith("workspace/") or "vidssl.workspace" not in text:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for owner in re.findall(OPENED, line):
                if owner not in NO_ARTIFACTS:
                    found.append(f"{name}:{number}: {line.strip()}")
            for pattern, allowed in BY_PATH.items():
                if re.search(pattern, line) and name not in allowed and "def " not in line:
                    found.append(f"{name}:{number}: {line.strip()}")
    assert not found
