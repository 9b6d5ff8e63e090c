"""`vidssl probe --mode knn`, and evaluations on several splits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_workspace import vidssl
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace

from vidssl.base.errors import UsageError
from vidssl.evaluation.feature_cache import load_features
from vidssl.stages import probe
from vidssl.stages.probe import ProbeOptions
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def three_splits(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 3 for n in range(30)])
    words = {f"split{s}": ["test" if n % 5 == s else "train" for n in range(30)] for s in (1, 2, 3)}
    table = annotate(workspace, pack, splits=words)
    make_checkpoint(workspace, pack, table, split="split1")
    return workspace


def test_votes_are_those_of_the_stored_features(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    found = probe.run(workspace, ProbeOptions(mode="knn", settings=(("k", 3),)))
    artifact, report = found.stage.artifact, found.report
    assert artifact is not None and report is not None
    assert artifact.label == "probe/rgb-infonce-knn/v001" and artifact.recipe["mode"] == "knn"
    features = load_features(workspace.by_digest(artifact.parents["features"]))
    means = features.video_means().astype(float)
    unit = dict(zip(features.ids, means / np.linalg.norm(means, axis=1)[:, None], strict=True))
    rows = list(csv.DictReader((artifact.path / "predictions.csv").open()))
    tested = {row["id"] for row in rows}
    names = _labels(workspace)
    for row in rows:
        votes: dict[str, float] = {}
        train = [video for video in features.ids if video not in tested]
        near = sorted(train, key=lambda v: -float(unit[row["id"]] @ unit[v]))[:3]
        for video in near:
            weight = np.exp(float(unit[row["id"]] @ unit[video]) / 0.07)
            votes[names[video]] = votes.get(names[video], 0) + weight
        best = max(votes, key=lambda c: votes[c])
        assert row["class_1"] == best
        assert float(row["share_1"]) == pytest.approx(votes[best] / sum(votes.values()), abs=1e-3)
    right = [row["label"] == row["class_1"] for row in rows]
    assert report.top1 == pytest.approx(np.mean(right)) and report.train_top1 is None
    again = probe.run(workspace, ProbeOptions(mode="knn", settings=(("k", 3),)))
    assert again.stage.reused and again.report == report


def _labels(workspace: Workspace) -> dict[str, str]:
    table = workspace.newest("annotations").path / "annotations.csv"
    return {row["id"]: row["label"] for row in csv.DictReader(table.open())}


def test_a_mode_or_setting_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    with pytest.raises(UsageError, match="mode must be linear or knn, not lineer"):
        probe.run(workspace, ProbeOptions(mode="lineer"))
    with pytest.raises(UsageError, match="leave --recipe away"):
        probe.run(workspace, ProbeOptions(mode="knn", recipe="paper"))
    with pytest.raises(UsageError, match="epochs"):
        probe.run(workspace, ProbeOptions(mode="knn", settings=(("epochs", 3),)))


def test_several_splits_are_each_kept_and_averaged(three_splits: Workspace) -> None:
    root = three_splits.root
    found = vidssl("probe", "--mode", "knn", "--split", "1,2,3", "--json", workspace=root).json
    tops = []
    for number in (1, 2, 3):
        name = f"split{number}"
        alone = vidssl("probe", "--mode", "knn", "--split", name, "--json", workspace=root).json
        assert alone["reused"] and alone["results"] == found["splits"][name]["results"]
        tops.append(alone["results"]["top1"])
    mean = found["means"]["top1"]
    assert mean["mean"] == pytest.approx(np.mean(tops)) and mean["splits"] == 3
    assert mean["error"] == pytest.approx(np.std(tops, ddof=1) / 3**0.5)
    shown = vidssl("probe", "--mode", "knn", "--splits", "all", workspace=root).out
    assert "split3" in shown and "mean" in shown and "split2: " in shown  # split2 leaks


def test_retrieval_on_several_splits(three_splits: Workspace) -> None:
    root = three_splits.root
    found = vidssl("retrieve", "--evaluate", "--splits", "1,3", "--json", workspace=root).json
    each = [found["splits"][name]["results"] for name in ("split1", "split3")]
    firsts = [report["recall"][0]["recall"] for report in each]
    assert found["means"]["R@1"]["mean"] == pytest.approx(np.mean(firsts))
    maps = [report["precision"]["mean"] for report in each]
    assert found["means"]["mAP"]["mean"] == pytest.approx(np.mean(maps))


def test_splits_that_cannot_be_averaged_are_one_sentence(three_splits: Workspace) -> None:
    root = three_splits.root
    for options, code, said in (
        (("--splits", "1"), 2, "two splits or more"),
        (("--split", "1,4"), 1, "no split named '4'"),
        (("--split", "1", "--splits", "all"), 2, "give one of them"),
    ):
        result = vidssl("probe", *options, workspace=root, code=code)
        assert said in result.err.replace("\n", " "), result.err
    assert not three_splits.artifacts("probe")
