"""TV-L1 on a GPU: what Triton's interpreter is too slow for, or cannot show.

python -m pytest -m cuda -n 0 tests/optical_flow/test_tvl1_cuda.py
tests/kernels/test_tvl1_kernels.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import TESTS
from tvl1_flow import Pair, agreement, end_point_error, stored_pairs

from vidssl.optical_flow.algorithms import TVL1_PARAMS
from vidssl.optical_flow.batched import BatchedFlow, FramePair
from vidssl.optical_flow.tvl1.estimator import start_batched
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.torch_tvl1 import TorchTVL1

PUBLISHED = Parameters.of(TVL1_PARAMS)
SCRIPT = TESTS / "cuda" / "tvl1.py"
without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def flows_of(method: BatchedFlow, pairs: Sequence[Pair]) -> list[np.ndarray]:
    given = [FramePair(number, pair.before, pair.after) for number, pair in enumerate(pairs)]
    found = dict(method.flows(iter(given)))
    return [found[number] for number in range(len(pairs))]


def by_kernels(
    pairs: Sequence[Pair],
    parameters: Parameters = PUBLISHED,
    in_flight: int = 4,
    **options: int,
) -> list[np.ndarray]:
    from vidssl.optical_flow.tvl1.scheduler import TritonTVL1

    return flows_of(TritonTVL1(parameters, torch.device("cuda"), in_flight, options), pairs)


@pytest.mark.cuda
@without_cuda
def test_the_flow_is_opencvs():
    method = start_batched(TVL1_PARAMS, "cuda")
    assert not isinstance(method, TorchTVL1), "the kernels prove themselves"
    pairs = stored_pairs()
    flows = flows_of(method, pairs)
    found = [agreement(flow, pair.opencv) for flow, pair in zip(flows, pairs, strict=True)]
    assert np.mean([one.epe for one in found]) <= 0.03
    assert np.mean([one.close for one in found]) >= 0.97
    assert np.mean([one.bytes for one in found]) >= 0.99
    truths = [pair.truth for pair in pairs]
    ours, theirs = (
        np.mean([end_point_error(*two).mean() for two in zip(some, truths, strict=True)])
        for some in (flows, [pair.opencv for pair in pairs])
    )
    assert ours <= theirs + 0.002


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("medians", [1, 3])
def test_at_equal_iterations_it_is_the_flow_of_plain_pytorch(medians):
    few = replace(PUBLISHED, epsilon=0.0, inner_iterations=5, outer_iterations=medians)
    expected = flows_of(TorchTVL1(few, torch.device("cpu")), stored_pairs())
    flows = by_kernels(stored_pairs(), few)
    for flow, other in zip(flows, expected, strict=True):
        assert end_point_error(flow, other).mean() < 1e-4


@pytest.mark.cuda
@without_cuda
def test_with_stopping_it_is_nearly_the_flow_of_plain_pytorch():
    expected = flows_of(TorchTVL1(PUBLISHED, torch.device("cpu")), stored_pairs())
    flows = by_kernels(stored_pairs())
    errors = [end_point_error(a, b).mean() for a, b in zip(flows, expected, strict=True)]
    assert np.mean(errors) <= 0.01


@pytest.mark.cuda
@without_cuda
def test_plain_pytorch_gives_the_same_on_both_devices():
    pairs = stored_pairs(128)
    here, there = (flows_of(TorchTVL1(PUBLISHED, torch.device(d)), pairs) for d in ("cpu", "cuda"))
    errors = [end_point_error(a, b).mean() for a, b in zip(here, there, strict=True)]
    assert np.mean(errors) <= 0.01


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize(
    ("in_flight", "options"),
    [(1, {}), (32, {}), (3, {"graph": False}), (3, {"iterations": 7, "blocks": 1})],
)
def test_no_bit_depends_on_company_order_or_launches(in_flight, options):
    pairs = stored_pairs()
    expected = by_kernels(pairs)
    for _ in range(2):
        found = by_kernels(pairs[::-1], in_flight=in_flight, **options)[::-1]
        for flow, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(flow, other)


@pytest.mark.cuda
@without_cuda
def test_extract_flow_takes_the_gpu_and_tvl1_of_itself(tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    from video_files import moving_square, write_video

    from vidssl.shards import ShardReader
    from vidssl.stages import extract_flow
    from vidssl.stages.extract_flow import ExtractFlow
    from vidssl.workspace.workspace import Workspace

    for number in range(3):
        clip = moving_square(9 + number, 160 - 16 * number, 120, seed=number)
        write_video(tmp_path / f"v/{number}.mp4", clip)
    made = [
        extract_flow.run(
            Workspace(tmp_path / name), ExtractFlow(tmp_path / "v", **options)
        ).artifact
        for name, options in (("gpu", {}), ("cpu", {"method": "tvl1", "device": "cpu"}))
    ]
    there, here = (ShardReader(artifact.path) for artifact in made)
    assert there.views["flow"] == here.views["flow"]
    assert there.views["flow"]["method"] == "tvl1"
    for video in range(3):
        every = range(int(here.videos.frames[video]) - 1)
        a, b = there.flow(there.find(here.video_id(video)), every), here.flow(video, every)
        assert end_point_error(a, b).mean() < 0.05


# ── the script that measures


def run_script(tmp_path: Path, *words: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path, *words],
        capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tvl1.md").read_text() in done.stdout
    return json.loads((tmp_path / "tvl1.json").read_text())


SMALL = [
    "--device",
    "cpu",
    "--clips",
    "1",
    "--length",
    "3",
    "--preset",
    "fast",
    "--core-pairs",
    "1",
]


def check(results: dict) -> None:
    whole, roofline = results["frames to bytes"], results["roofline"]
    assert whole["pairs/s"] > 0 and whole["bytes/pair"] > 100
    work = whole["Mpx × iterations/pair"]
    assert work == results["frames to flow"]["Mpx × iterations/pair"]
    assert whole["Gpx × iterations/s"] * 1e3 == pytest.approx(work * whole["pairs/s"])
    share = whole["Gpx × iterations/s"] * roofline["bytes/px × iteration"] / roofline["copy GB/s"]
    assert roofline["share, frames to bytes"] == pytest.approx(share)
    assert sum(results["seconds"].values()) > 0
    assert results["times one core"].keys() >= {"PyTorch"}


def test_the_script_runs_without_a_gpu(tmp_path):
    words = [*SMALL, "--size", "64x48", "--pairs", "3", "--plain"]
    check(run_script(tmp_path, *words))


@pytest.mark.slow
def test_the_script_runs_by_the_interpreter(tmp_path):
    words = [*SMALL, "--size", "24x20", "--pairs", "1", "--in-flight", "2"]
    check(run_script(tmp_path, *words, TRITON_INTERPRET="1"))


@pytest.mark.cuda
@without_cuda
def test_the_script_runs_with_a_gpu(tmp_path):
    results = run_script(tmp_path, "--pairs", "64", "--clips", "4")
    check(results)
    assert 0 < results["roofline"]["share, step alone"] < 1.5
    kernels = {"step", "stop_converged", "median_filter", "linearise", "enter_scale", "next_stage"}
    assert kernels <= results["seconds"].keys()
