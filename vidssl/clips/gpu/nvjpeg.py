"""Decodes JPEG on a CUDA device, by nvJPEG."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vidssl.base.errors import VidsslError

RGB, GREY = "RGB", "GRAY"


def decode_jpegs(blobs: Sequence[Tensor], grey: bool, device: torch.device) -> list[Tensor]:
    """Decodes pictures: each uint8 [bytes] in host memory → uint8 [P, H, W] on the device.

    nvJPEG rounds and upsamples colour in another way than libjpeg: levels differ by one or two.

    Args:
        grey: whether P is 1; else it is 3.

    Raises:
        VidsslError: no decoder for the device is installed, or a blob is no JPEG.
    """
    decode = _decoder()
    if device.type == "cuda":
        # nvJPEG decodes on streams of its own, which do not wait for this stream. The memory of
        # the pictures may still be used by work that this stream has queued.
        torch.cuda.current_stream(device).synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision warns that torchcodec will replace it
            return decode(list(blobs), mode=GREY if grey else RGB, device=device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise VidsslError(f"a frame could not be decoded on {device}: {reason}") from error


@lru_cache(maxsize=1)
def _decoder() -> Callable[..., Any]:
    """Returns torchcodec's function where there is one, else torchvision's of the same form."""
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, RuntimeError, OSError):  # not installed, or built for another torch
        try:
            from torchvision.io import decode_jpeg
        except ImportError as error:
            raise VidsslError(
                "this torchvision decodes no JPEG on a GPU: pip install 'vidssl[torchcodec]'"
            ) from error
    return decode_jpeg
