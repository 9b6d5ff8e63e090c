"""Bounds the memory of a worker, so that one strange video takes no more than its share.

A hostile file of a few kilobytes can make a decoder ask for gigabytes. Where that is more than the
bound, the request fails, the video is tried again alone with the bound of a single worker, and is
left out if that is too little as well. The system would otherwise end some process or other.
"""

from __future__ import annotations

import resource
import sys

from vidssl.base.cores_and_memory import memory

SMALLEST = 4 << 30  # bytes that each worker may take, whatever the others do
OF_ALL = 0.9  # of the memory: what all workers may take together


def worker_memory(workers: int) -> int | None:
    """Returns the bytes that each of some workers may take; None where that is not bounded.

    It is their share of nine tenths of the memory that vidssl may fill, or 4 GiB where that is
    more; one worker alone may take the whole nine tenths. Only Linux counts what this bounds.
    """
    whole = memory() if sys.platform == "linux" else None
    if whole is None:
        return None
    most = int(whole * OF_ALL)
    return min(most, max(SMALLEST, most // workers))


def bound_memory(most: int | None) -> None:
    """Lets this process's requests for more memory fail: it then has private data of `most` bytes.

    Args:
        most: bytes; None changes nothing. A lower limit that is already set stays.
    """
    if most is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (most, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))


def is_shortage(error: Exception) -> bool:
    """Whether an error means that this process may have no more memory."""
    # OpenCV and PyTorch have errors of their own for it.
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in ("Insufficient memory", "can't allocate memory")
    )
