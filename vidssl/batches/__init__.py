"""Batches of clips as the training loop takes them, made on a host or on a device."""

import torch

from vidssl.base.errors import UsageError
from vidssl.batches.contract import BatchMaker, Pending
from vidssl.batches.encoded import FromEncoded
from vidssl.batches.network_input import network_input
from vidssl.batches.on_device import FromRegions
from vidssl.batches.on_host import OnHost

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
    """Gives what makes batches for a device.

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
