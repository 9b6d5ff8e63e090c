"""The count of bytes on paper: what is known beforehand comes out, and both ways agree on it."""

from __future__ import annotations

import pytest
import torch
from benchmarks import paper_bytes as bench
from torch import nn

SHAPE = (2, 8, 32)


def small(channels: int) -> nn.Module:
    """Two convolutions, each with BatchNorm and ReLU, and a pooling between."""
    return nn.Sequential(
        nn.Conv3d(channels, 16, (1, 3, 3), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.Conv3d(16, 32, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(32),
        nn.ReLU(inplace=True),
    )


@pytest.fixture
def counted(monkeypatch) -> None:
    monkeypatch.setitem(bench.BACKBONES, "small", small)


def test_maps_and_operations_are_counted(counted):
    voxels = 2 * 8 * 32 * 32
    first, second = 2 * 16 * voxels, 2 * 32 * voxels // 4  # bytes in bf16
    assert bench.normalised("small", *SHAPE) == first + second
    single = bench.by_operations("small", *SHAPE)
    small_things = 20_000  # parameters and statistics
    passes = {"BatchNorm": 3 + 5 + 3, "ReLU": 2 + 3 + 2}
    for kind, count in passes.items():
        assert single[kind] == pytest.approx(count * (first + second), abs=small_things)
    clips = 2 * 3 * voxels
    # Forward twice; backward once, where clips get no gradient.
    convolutions = 3 * (clips + first) + 2 * (first // 4 + second) + 2 * first // 4 + second
    assert single["convolutions"] == pytest.approx(convolutions, abs=small_things)


def test_pooling_stays_in_bf16_as_on_cuda():
    with bench.bf16_as_on_cuda():
        assert small(3)[:4](torch.randn(1, 3, 2, 8, 8)).dtype == torch.bfloat16
