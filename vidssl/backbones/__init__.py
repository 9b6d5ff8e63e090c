"""Backbones and the encoder around them; :data:`BACKBONES` has one entry for each backbone."""

from vidssl.backbones.encoder import BACKBONES, Encoder, EncoderSpec, check_backbone

__all__ = ["BACKBONES", "Encoder", "EncoderSpec", "check_backbone"]
