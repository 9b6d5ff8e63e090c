"""Every backbone of the table: its size as published, any number of channels, its shapes."""

from __future__ import annotations

import pytest
import torch

from vidssl.backbones import BACKBONES, Encoder, EncoderSpec
from vidssl.backbones.convgru import ConvGRUCell
from vidssl.backbones.dpc_context import DenseContext, unit_channels
from vidssl.base.errors import UsageError

# Of the published networks, rgb; torchvision's without their classifiers.
PARAMETERS = {
    "s3d": 7_910_048,
    "r2plus1d": 14_365_303,
    "r2plus1d_18": 31_505_325 - 400 * 513,
    "r3d_18": 33_371_472 - 400 * 513,
    "r2d3d_18": 14_057_536,
    "r2d3d_34": 32_422_208,
    "r2d3d_50": 31_672_128,
}
# Of 8 frames of 64 pixels.
SHAPES = {
    "s3d": (1024, 1, 2, 2),
    "r2plus1d": (512, 1, 4, 4),
    "r2plus1d_18": (512, 1, 4, 4),
    "r3d_18": (512, 1, 4, 4),
    "r2d3d_18": (256, 2, 2, 2),
    "r2d3d_34": (256, 2, 2, 2),
    "r2d3d_50": (2048, 4, 2, 2),
    "tiny": (128, 4, 4, 4),
    "motion": (128, 1, 1, 1),
    "motion+s3d": (1024, 1, 2, 2),
}


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_every_backbone_is_in_the_tables():
    assert set(SHAPES) == set(BACKBONES) == {*PARAMETERS, "tiny", "motion", "motion+s3d"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_number_of_parameters(name):
    assert count(BACKBONES[name](3)) == PARAMETERS[name]


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 3, 17])
@pytest.mark.parametrize("name", BACKBONES)
def test_any_number_of_channels_and_the_feature_maps_shape(name, channels):
    network = BACKBONES[name](channels).eval()
    features = network(torch.randn(1, channels, 8, 64, 64))
    assert features.shape == (1, *SHAPES[name]) and network.dim == SHAPES[name][0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["r2d3d_18", "r2d3d_34"])
def test_the_dense_networks_give_the_published_map_for_a_block(name):
    network = BACKBONES[name](3).eval()
    assert network(torch.randn(1, 3, 5, 128, 128)).shape == (1, 256, 2, 4, 4)
    features = network(torch.randn(1, 3, 5, 64, 64))
    assert features.min() < 0, "the last block has no ReLU"


@torch.no_grad()
def test_r2d3d_50_ends_in_a_relu():
    assert BACKBONES["r2d3d_50"](3).eval()(torch.randn(1, 3, 8, 64, 64)).min() == 0


def test_the_context_has_the_published_size():
    assert count(ConvGRUCell(256)) == 393_984
    assert count(DenseContext(256)) == 393_984 + 131_584


@torch.no_grad()
def test_the_gru_is_the_equation_place_by_place():
    cell, x, h = ConvGRUCell(4), torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    got = cell(x, h)
    for y in range(2):
        for z in range(2):
            one, state = x[0, :, y, z], h[0, :, y, z]

            def linear(conv, a, b):
                return conv.weight[:, :, 0, 0] @ torch.cat([a, b]) + conv.bias

            u, r = (linear(c, one, state).sigmoid() for c in (cell.update, cell.reset))
            new = linear(cell.out, one, r * state).tanh()
            torch.testing.assert_close(got[0, :, y, z], (1 - u) * state + u * new)


@torch.no_grad()
def test_foretold_features_and_states_have_unit_length():
    context, seen = DenseContext(8), unit_channels(torch.randn(2, 3, 8, 2, 2), 2)
    foretold = context.rollout(seen, 2)
    assert foretold.pred.shape == (2, 2, 8, 2, 2) and foretold.hidden.shape == (2, 8, 2, 2)
    for x, dim in ((foretold.pred, 2), (foretold.hidden, 1)):
        length = x.norm(dim=dim)
        torch.testing.assert_close(length, torch.ones_like(length), atol=1e-3, rtol=0)


def test_an_older_spec_is_read_and_written_as_it_was():
    old = {"view": "rgb", "backbone": "tiny", "channels": 3, "frames": 8, "stride": 2, "size": 64}
    spec = EncoderSpec(**old, project=128)
    assert spec.as_dict() == old | {"project": 128}
    assert (spec.blocks, spec.context, spec.presentation) == (1, None, "native")
    newer = EncoderSpec(**old, project=None, blocks=3, context="gru", presentation="cocon")
    assert EncoderSpec(**newer.as_dict()) == newer and newer.window == 24


def test_unknown_names_are_answered_with_what_there_is():
    with pytest.raises(UsageError, match="did you mean r2plus1d"):
        Encoder(EncoderSpec("rgb", "r2plus1", 3, 8, 1, 32))
    with pytest.raises(UsageError, match="there is no context lstm; there is gru"):
        Encoder(EncoderSpec("rgb", "tiny", 3, 8, 1, 32, None, 3, "lstm"))
