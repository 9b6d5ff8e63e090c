"""OpenCV's TV-L1 flow of made-up pairs, as tests/support/build_tvl1_flow.py stored it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from paths import DATA

PLACE = DATA / "tvl1.npz"
STEPS = 2048  # of one pixel


@dataclass(frozen=True)
class Pair:
    """Two grey pictures uint8 [H, W], OpenCV's flow between them and the true one [H, W, 2]."""

    name: str
    before: np.ndarray
    after: np.ndarray
    opencv: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How flow compares with a reference: figures of the agreement gate.

    Attributes:
        epe: mean end-point error, in pixels.
        close: share of pixels nearer than 0.1 px.
        bytes: share of 8-bit values within ±1.
    """

    epe: float
    close: float
    bytes: float


@cache
def stored_pairs(width: int | None = None) -> tuple[Pair, ...]:
    """Returns the stored pairs, or those of one width."""
    with np.load(PLACE) as file:
        names = dict.fromkeys(key.partition("/")[0] for key in file)
        pairs = [
            Pair(
                name,
                *file[f"{name}/pictures"],
                *(
                    np.cumsum(file[f"{name}/{kind}"], axis=1, dtype=np.int16) / np.float32(STEPS)
                    for kind in ("opencv", "truth")
                ),
            )
            for name in names
        ]
    return tuple(pair for pair in pairs if width in (None, pair.before.shape[1]))


def end_point_error(flow: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the distance in pixels, [H, W], between two flows [H, W, 2]."""
    distance: np.ndarray = np.linalg.norm(flow - reference, axis=-1)
    return distance


def agreement(flow: np.ndarray, reference: np.ndarray, bound: float = 20.0) -> Agreement:
    """Compares two flows [H, W, 2] as the agreement gate does."""
    from vidssl.views.flow import quantise

    distance = end_point_error(flow, reference)
    steps = quantise(flow, bound).astype(int) - quantise(reference, bound)
    return Agreement(
        float(distance.mean()), float((distance < 0.1).mean()), float((abs(steps) <= 1).mean())
    )
