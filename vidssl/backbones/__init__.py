"""Backbones and the encoder around them. A backbone is one entry of :data:`BACKBONES`."""

from vidssl.backbones.encoder import BACKBONES, Encoder, EncoderSpec

__all__ = ["BACKBONES", "Encoder", "EncoderSpec"]
