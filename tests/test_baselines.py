"""Baselines without learning: each feature by hand, and the stage around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_workspace import annotate, make_pack

from vidssl.artifacts import Workspace
from vidssl.errors import UsageError, VidsslError
from vidssl.stages import baselines
from vidssl.stages.baselines import (
    BaselineOptions,
    colour_histogram,
    flow_histogram,
    mean_frame,
    untrained_encoder,
    untrained_spec,
)


def test_colour_histogram_by_hand() -> None:
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    frames[0] = (255, 0, 64)  # bins 7, 0, 2
    found = colour_histogram(frames)
    assert found[7 * 64 + 2] == 0.5 and found[0] == 0.5 and found.sum() == 1


def test_mean_frame_by_hand() -> None:
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    frames[1, :, :24] = (200, 100, 0)
    found = mean_frame(frames).reshape(16, 16, 3)
    assert np.allclose(found[:, :8], (100, 50, 0)) and np.allclose(found[:, 8:], 0)


def test_flow_histogram_by_hand() -> None:
    flow = np.zeros((1, 3, 3, 2), np.float32)
    flow[0, 0, 0] = (3, 0.1)  # top left cell, to the right: bin 4 of −π..π
    flow[0, 2, 2] = (-0.1, -1)  # bottom right cell, up
    flow[0, 1, 1] = (0.2, 0.0)  # slow
    found = flow_histogram(flow).reshape(9, 9)
    total = np.hypot(3, 0.1) + np.hypot(0.1, 1) + 0.2
    assert found[0, 4] == pytest.approx(np.hypot(3, 0.1) / total)
    assert found[8, 1] == pytest.approx(np.hypot(0.1, 1) / total)
    assert found[4, 8] == pytest.approx(0.2 / total)
    assert found.sum() == pytest.approx(1)
    assert flow_histogram(np.zeros((2, 6, 6, 2), np.float32)).sum() == 0


def test_an_untrained_encoder_is_its_seed_and_leaves_the_generator_alone() -> None:
    spec = untrained_spec("rgb", "tiny", 8, 1, 32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (untrained_encoder(spec, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    states = [torch.cat([p.flatten() for p in e.parameters()]) for e in (one, same, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


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
    names = [result.stage.artifact.label for result in results]
    assert names == [
        "retrieval/baseline-colour-histogram/v001",
        "retrieval/baseline-mean-frame/v001",
        "retrieval/baseline-flow-histogram/v001",
        "retrieval/baseline-random-rgb-tiny/v001",
        "retrieval/baseline-random-rgb-tiny/v002",
    ]
    assert [r.report.at(1).recall for r in results[:2]] == [1.0, 1.0]  # the shade is the class
    assert all(r.report.queries == 10 for r in results)
    again = baselines.run(workspace, options)
    assert all(r.stage.reused for r in again)
    assert [r.report for r in again] == [r.report for r in results]
    rows = baselines.compare(results)
    assert rows[0]["features"] == "colour-histogram" and rows[0]["R@1"] == (1.0, 0.0)


def test_bad_requests(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mean-frame"):
        baselines.run(workspace, BaselineOptions(baselines=("mean-frames",)))
    with pytest.raises(VidsslError, match="vidssl pack"):
        baselines.run(Workspace(tmp_path / "none"), BaselineOptions())
    other = Workspace(tmp_path / "rgb")
    annotate(other, make_pack(other, [0, 1] * 5))
    with pytest.raises(VidsslError, match="extract-flow"):
        baselines.run(other, BaselineOptions(baselines=("flow-histogram",)))
