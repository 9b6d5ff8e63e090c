"""Batches of clips as the training loop takes them, made on a host or on a device."""

import torch

from vidssl.base.errors import UsageError
from vidssl.clips.batch_maker import BatchMaker, Pending
from vidssl.clips.cpu_batches import OnHost
from vidssl.clips.gpu.gpu_batches import FromRegions
from vidssl.clips.gpu.nvjpeg_batches import FromEncoded
from vidssl.clips.network_input import network_input

__all__ = [
    "DECODERS",
    "BatchMaker",
    "FromEncoded",
    "FromRegions",
    "OnHost",
    "Pending",
    "batch_maker",
    "network_input",
]

DECODERS = ("host", "gpu")


def batch_maker(device: torch.device, decode: str = "host") -> type[BatchMaker]:
    """Returns what makes batches for a device.

    Args:
        decode: who decodes JPEG, one of :data:`DECODERS`.

    Raises:
        UsageError: the device does not decode, or nobody is called so.
    """
    if decode not in DECODERS:
        raise UsageError(f"frames are not decoded by {decode}, but by {' or '.join(DECODERS)}")
    if device.type == "cpu":
        if decode == "gpu":
            raise UsageError("--decode gpu needs a CUDA device, and this trains on the CPU")
        return OnHost
    return FromEncoded if decode == "gpu" else FromRegions
