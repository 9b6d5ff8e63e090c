"""Untrained encoders: their weights depend on the seed alone."""

from __future__ import annotations

import torch

from vidssl.evaluation.untrained_encoder import untrained_encoder, untrained_spec


def test_an_untrained_encoder_is_its_seed_and_leaves_the_generator_alone() -> None:
    spec = untrained_spec("rgb", "tiny", 8, 1, 32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (untrained_encoder(spec, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    states = [torch.cat([p.flatten() for p in e.parameters()]) for e in (one, same, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
