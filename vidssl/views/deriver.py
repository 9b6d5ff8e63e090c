"""The contract of a deriver, which makes a view from decoded frames for `vidssl extract-view`.

A deriver is a class apart from its :class:`vidssl.views.view.View`, so that a machine that only
trains loads no detector: only :meth:`vidssl.views.view.View.deriver` imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class NoConfig:
    """The `Config` of a deriver without settings."""


class Deriver(ABC):
    """Makes the frames of a view from RGB frames; each worker process has one instance.

    Attributes:
        Config: frozen dataclass of its settings, which `--set` changes.
        stride: the default of `--stride`: one of so many frames is derived, and those between are
            interpolated when they are read (:mod:`vidssl.views.frame_interpolation`).
        stored_size: the default of `--stored-size`, in pixels of the short side; None: as derived.

    Args:
        config: a `Config`.
        device: cpu or cuda.
    """

    Config: ClassVar[type] = NoConfig
    stride: ClassVar[int] = 1
    stored_size: ClassVar[int | None] = 128

    def __init__(self, config: Any, device: str = "cpu") -> None:
        self.config, self.device = config, device

    @abstractmethod
    def derive(
        self, frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[np.ndarray]:
        """Yields frames 0, stride, 2·stride, … of the view, uint8 [h, w, C].

        Args:
            frames: of the whole video, RGB uint8 [H, W, 3], all of one size; can be iterated
                once.
            size: short side at which frames will be stored. Larger ones are scaled down by area
                afterwards; a deriver with a better way returns them at that size.
        """

    @classmethod
    def describe(cls, config: Any, device: str) -> dict[str, Any]:
        """Returns, as plain data, all that determines what is derived; recorded with the frames.

        Raises:
            VidsslError: something that it needs is missing, such as weights.
        """
        return asdict(config)

    @classmethod
    def recall(cls, recorded: Mapping[str, Any], weights: str = "") -> Any:
        """Returns the `Config` from what :meth:`describe` returned.

        Args:
            weights: file of a network's weights; empty: torch's cache.

        Raises:
            VidsslError: the weights are missing, or are not those recorded.
        """
        return cls.Config(**recorded)
