"""Damages bytes as disks and people do, from a seeded draw."""

import numpy as np

KINDS = ("flip", "zero", "cut")


def damaged(data: bytes, kind: str, draw: np.random.Generator) -> bytes:
    """Flips a bit, zeroes up to 64 bytes, or cuts the end off; zeroes may change nothing."""
    place, changed = int(draw.integers(len(data))), bytearray(data)
    if kind == "flip":
        changed[place] ^= 1 << int(draw.integers(8))
    elif kind == "zero":
        end = min(len(data), place + int(draw.integers(1, 65)))
        changed[place:end] = bytes(end - place)
    else:
        del changed[place:]
    return bytes(changed)
