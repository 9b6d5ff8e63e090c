"""What is kept of windows gives the same features, whichever of them are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_workspace import make_pack

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.backbones.motion import Motion
from vidssl.evaluation.features import WindowProtocol, embed_videos
from vidssl.evaluation.kept_windows_of_pack import kept_windows_of
from vidssl.shards import open_shards
from vidssl.workspace.workspace import Workspace


@pytest.fixture
def pack(tmp_path):
    return make_pack(Workspace(tmp_path / "w"), [0, 1, 2, 0], ("rgb", "flow"))


def encoder(view: str = "rgb", backbone: str = "motion") -> Encoder:
    torch.manual_seed(0)
    channels = 3 if view == "rgb" else 2
    return Encoder(
        EncoderSpec(backbone=backbone, view=view, channels=channels, frames=8, stride=1, size=16)
    )


PROTOCOL = WindowProtocol(hop=3, crops="ten")


def embedded(pack, network, videos=(0, 1, 2, 3), protocol=PROTOCOL, keep=True):
    with open_shards(pack) as reader:
        kept = kept_windows_of(pack, reader, network, protocol, "cpu") if keep else None
        ids = [str(v) for v in videos]
        return embed_videos(network, reader, videos, ids, protocol, batch=3, kept=kept).windows


@pytest.mark.parametrize("view", ["rgb", "flow"])
def test_features_do_not_depend_on_what_is_kept(pack, view, monkeypatch):
    network = encoder(view)
    without = embedded(pack, network, keep=False)
    some = embedded(pack, network, videos=(2, 0))  # keeps those of two videos
    assert np.array_equal(embedded(pack, network), without)
    calls = []
    real = Motion.fixed_part
    monkeypatch.setattr(Motion, "fixed_part", lambda self, x: calls.append(1) or real(self, x))
    assert np.array_equal(embedded(pack, network), without)
    assert np.array_equal(embedded(pack, network, videos=(2, 0)), some)
    assert len(calls) == 2  # that tell the shape
    # Of other windows nothing is found, and what is kept is not taken for them.
    other = WindowProtocol(hop=3)
    assert np.array_equal(
        embedded(pack, network, protocol=other),
        embedded(pack, network, protocol=other, keep=False),
    )


def test_nothing_is_kept_of_a_network_without_a_fixed_part_or_for_another_device(pack):
    with open_shards(pack) as reader:
        assert kept_windows_of(pack, reader, encoder(backbone="tiny"), PROTOCOL, "cpu") is None
        assert kept_windows_of(pack, reader, encoder(), PROTOCOL, "cuda") is None
