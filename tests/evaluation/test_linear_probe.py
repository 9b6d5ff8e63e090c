"""The linear classifier on frozen features: what it learns, and its first step by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidssl.base.errors import VidsslError
from vidssl.evaluation.linear_probe import (
    LinearProbe,
    ProbeConfig,
    batch_for,
    probabilities,
    rate_for,
    train_probe,
)


def planted(count: int, dim: int = 32, classes: int = 5, seed: int = 0):
    """Features whose class shifts them a little, and their labels."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = np.arange(count) % classes
    return (centres[labels] + draw.normal(0, 0.7, (count, dim))).astype(np.float32), labels


def test_planted_labels_are_found() -> None:
    x, y = planted(300)
    made = train_probe(x, y, 5, ProbeConfig(), seed=0)
    unseen, truth = planted(200, seed=1)
    assert (probabilities(made, unseen).argmax(1) == truth).mean() > 0.97


def test_shuffled_labels_stay_at_chance() -> None:
    x, y = planted(300)
    y = np.random.default_rng(2).permutation(y)
    made = train_probe(x, y, 5, ProbeConfig(), seed=0)
    unseen, truth = planted(400, seed=1)
    right = (probabilities(made, unseen).argmax(1) == truth).mean()
    assert abs(right - 0.2) < 3.5 * (0.16 / 400) ** 0.5


def test_scale_and_offset_of_features_do_not_matter() -> None:
    x, y = planted(100)
    config = ProbeConfig(epochs=20)
    one = probabilities(train_probe(x, y, 5, config, 0), x)
    moved = 1e-3 * x + 7
    other = probabilities(train_probe(moved, y, 5, config, 0), moved)
    # BatchNorm's eps of 1e-5 is not nothing beside a variance of 1e-6, so only roughly.
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.95


def test_the_same_seed_gives_the_same_bytes() -> None:
    x, y = planted(90)
    config = ProbeConfig(epochs=5)
    states = [train_probe(x, y, 5, config, seed).state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])


def test_first_step_by_hand() -> None:
    """One full-batch step of SGD from N(0, 0.01): w − lr·(gradient + decay·w)."""
    x, y = planted(20)
    config = ProbeConfig(epochs=1, batch=20, decay_at=())
    made = train_probe(x, y, 5, config, seed=7)
    generator = torch.Generator().manual_seed(7)
    start = LinearProbe(32, 5, generator).train()
    torch.nn.functional.cross_entropy(start(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    w, grad = start.fc.weight.detach(), start.fc.weight.grad
    assert start.fc.weight.std().item() == pytest.approx(0.01, rel=0.2)
    expected = w - (20 / 1024) * (grad + 1e-3 * w)
    assert torch.allclose(made.fc.weight, expected, atol=1e-6)


def test_a_probe_that_diverges_is_one_sentence() -> None:
    x, y = planted(20)
    with pytest.raises(VidsslError, match=r"diverged: .* a lower rate"):
        train_probe(x, y, 5, ProbeConfig(epochs=3, lr=1e30), seed=0)


def test_batch_and_rate() -> None:
    assert batch_for(9537, ProbeConfig()) == 1024  # UCF101 split 1: as published
    assert rate_for(1024, ProbeConfig()) == 1.0
    assert batch_for(350, ProbeConfig()) == 32  # 8 steps an epoch at least
    assert batch_for(20, ProbeConfig()) == 16
    assert rate_for(32, ProbeConfig()) == 1 / 32
    assert batch_for(350, ProbeConfig(batch=100)) == 100


def test_no_video_is_ever_alone_in_a_step() -> None:
    x, y = planted(33)
    made = train_probe(x, y, 5, ProbeConfig(epochs=2, batch=2), seed=0)
    assert torch.isfinite(made.fc.weight).all()
    with pytest.raises(ValueError, match="two videos"):
        train_probe(x[:1], y[:1], 5, ProbeConfig(), seed=0)
