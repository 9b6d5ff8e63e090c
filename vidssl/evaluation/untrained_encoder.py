"""Makes encoders with random weights: the baseline that shows what training adds."""

from __future__ import annotations

import torch

from vidssl.backbones import Encoder, EncoderSpec, check_backbone
from vidssl.views import get_view


def untrained_encoder(spec: EncoderSpec, seed: int) -> Encoder:
    """Returns an encoder with the initial weights of a training with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(spec).eval()


def untrained_spec(view: str, backbone: str, frames: int, stride: int, size: int) -> EncoderSpec:
    """Returns the spec of an untrained encoder without a projection head."""
    check_backbone(backbone)
    channels = get_view(view).channels
    return EncoderSpec(view, backbone, channels, frames, stride, size, project=None)
