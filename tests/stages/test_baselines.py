"""`vidssl baselines`: hand-made features and untrained encoders, measured like learned ones."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import pytest
from paths import ROOT
from rich.console import Console
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.backbones import EncoderSpec
from vidssl.base.errors import UsageError, VidsslError
from vidssl.cli.tables import baseline_table
from vidssl.evaluation import probed_accuracy
from vidssl.evaluation.classification import PREDICTIONS_FILE
from vidssl.evaluation.untrained_encoder import untrained_spec
from vidssl.stages import baselines, probe
from vidssl.stages.baselines import BaselineOptions
from vidssl.stages.probe import ProbeOptions
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "ws")
    pack = make_pack(made, [n % 3 for n in range(30)], ("rgb", "flow"), length=9)
    annotate(made, pack, splits={"s": ["train" if n % 3 else "test" for n in range(30)]})
    return made


def test_the_stage_measures_what_the_pack_has(workspace: Workspace) -> None:
    spec = untrained_spec("rgb", "tiny", 8, 1, 32)
    options = BaselineOptions(encoders=(spec,), seeds=(0, 1))
    results = baselines.run(workspace, options)
    names = [
        "baseline-colour-histogram/v001",
        "baseline-mean-frame/v001",
        "baseline-flow-histogram/v001",
        "baseline-random-rgb-tiny/v001",
        "baseline-random-rgb-tiny/v002",
    ]
    assert [r.retrieval.stage.artifact.label for r in results] == [f"retrieval/{n}" for n in names]
    assert [r.probe.stage.artifact.label for r in results] == [f"probe/{n}" for n in names]
    # The shade is the class.
    assert [r.retrieval.report.at(1).recall for r in results[:2]] == [1.0, 1.0]
    assert [r.probe.report.top1 for r in results[:2]] == [1.0, 1.0]
    assert all(r.retrieval.report.queries == r.probe.report.test_clips == 10 for r in results)
    again = baselines.run(workspace, options)
    assert all(r.retrieval.stage.reused and r.probe.stage.reused for r in again)
    assert [r.probe.report for r in again] == [r.probe.report for r in results]


def test_an_untrained_encoder_is_probed_as_a_trained_one(workspace: Workspace) -> None:
    """The same weights as a checkpoint give the same predictions, byte for byte."""
    spec = EncoderSpec("rgb", "tiny", 3, 8, 1, 32, 16)  # of make_checkpoint
    options = BaselineOptions(baselines=(), encoders=(spec,))
    (untrained,) = baselines.run(workspace, options)
    pack, table = workspace.newest("pack"), workspace.newest("annotations")
    checkpoint = make_checkpoint(workspace, pack, table, split="s")
    probed = probe.run(workspace, ProbeOptions((checkpoint.label,)))
    files = [
        (result.stage.artifact.path / PREDICTIONS_FILE).read_bytes()
        for result in (untrained.probe, probed)
    ]
    assert files[0] == files[1]
    _, classes = probed_accuracy.load_probe(
        untrained.probe.stage.artifact.path / probed_accuracy.PROBE_FILE
    )
    assert classes == ["class0", "class1", "class2"]


def test_the_probe_of_a_baseline_is_found_by_the_results_tables(
    workspace: Workspace, tmp_path: Path
) -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    tables = importlib.import_module("results_tables")
    (found,) = baselines.run(workspace, BaselineOptions(baselines=("mean-frame",)))
    tables.collect(workspace.root, tmp_path / "kept.tar.xz")
    score = tables.score(tables.read(tmp_path / "kept.tar.xz"), "baseline-mean-frame")
    assert score.probe == found.probe.report.top1


def test_baselines_are_shown_with_their_probes(workspace: Workspace) -> None:
    results = baselines.run(workspace, BaselineOptions(baselines=("mean-frame",)))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(baseline_table(results))
    shown = console.export_text()
    assert "linear probe top-1 %" in shown and "mean-frame" in shown
    assert results[0].as_dict()["probe"]["results"]["top1"] == 1.0


def test_a_single_class_cannot_be_measured(tmp_path: Path) -> None:
    made = Workspace(tmp_path / "ws")
    annotate(made, make_pack(made, [0] * 10))
    with pytest.raises(VidsslError, match="has only class0"):
        baselines.run(made, BaselineOptions())


def test_bad_requests(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mean-frame"):
        baselines.run(workspace, BaselineOptions(baselines=("mean-frames",)))
    with pytest.raises(VidsslError, match="vidssl pack"):
        baselines.run(Workspace(tmp_path / "none"), BaselineOptions())
    other = Workspace(tmp_path / "rgb")
    annotate(other, make_pack(other, [0, 1] * 5))
    with pytest.raises(VidsslError, match="extract-flow"):
        baselines.run(other, BaselineOptions(baselines=("flow-histogram",)))
