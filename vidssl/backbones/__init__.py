"""Backbones and the encoder around them. A backbone is one entry of :data:`BACKBONES`."""

from vidssl.backbones.encoder import BACKBONES, Encoder, EncoderSpec, check_backbone

__all__ = ["BACKBONES", "Encoder", "EncoderSpec", "check_backbone"]
