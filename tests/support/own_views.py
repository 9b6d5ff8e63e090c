"""A view of a user's own, made without a network: how bright a frame is against the one before.

Tests name this file in VIDSSL_VIEWS; its settings let them spoil it in several ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import ClassVar

import numpy as np

from vidssl.views.deriver import Deriver
from vidssl.views.stacked_channels import StackedView


@dataclass(frozen=True)
class Config:
    gain: float = 1.0
    fail: str = ""


class Brighter(Deriver):
    Config = Config
    stored_size = None

    def __init__(self, config: Config, device: str = "cpu") -> None:
        super().__init__(config, device)
        if config.fail == "load":
            raise RuntimeError("the network is gone")

    def derive(
        self, frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[np.ndarray]:
        yield from islice(self._all(frames), 0, None, stride)

    def _all(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for number, (before, after) in enumerate(pairwise(frames)):
            if self.config.fail == "early" and number == 2:
                return
            change = after.astype(np.float32).mean(2) - before.astype(np.float32).mean(2)
            yield (128 + self.config.gain * change).clip(0, 255).astype(np.uint8)[..., None]


class BrighterView(StackedView):
    name: ClassVar[str] = "brighter"
    channels: ClassVar[int] = 1
    lag: ClassVar[int] = 1
    default_codec: ClassVar[str] = "png"
    native: ClassVar[str] = "(x − 128)/128"

    def to_float(self, x):
        return (x.float() - 128) / 128

    def flip(self, frames: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(frames[:, :, ::-1])

    def deriver(self) -> type[Deriver]:
        return Brighter


VIEW = BrighterView()
