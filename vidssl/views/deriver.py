"""How a view is made from decoded frames: the contract of `vidssl extract-view`.

It is apart from :class:`vidssl.views.view.View`, so that a machine that only trains loads no
detector: a view names its deriver in :meth:`vidssl.views.view.View.deriver` and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class NoConfig:
    """Of a deriver without settings."""


class Deriver(ABC):
    """Makes the frames of a view from RGB frames; one is made per worker process.

    Attributes:
        Config: frozen dataclass of its settings; the command line fills it by `--set`.
        stride: every how many frames it derives one, unless told; what lies between is
            interpolated when it is read (:mod:`vidssl.views.frame_interpolation`).
        stored_size: short side at which its frames are stored, unless told; None: as they come.

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
        """Returns frames 0, stride, 2·stride, … of the view, uint8 [h, w, C].

        Args:
            frames: of the whole video, RGB uint8 [H, W, 3], all of one size; each may be asked
                for once.
            size: short side at which they will be stored. Frames that are larger are scaled down
                by area afterwards; a deriver that knows better gives them at that size.
        """

    @classmethod
    def describe(cls, config: Any, device: str) -> dict[str, Any]:
        """Returns as plain data all that decides what is derived; recorded with the frames.

        Raises:
            VidsslError: what it needs is missing, such as weights.
        """
        return asdict(config)

    @classmethod
    def recall(cls, recorded: Mapping[str, Any], weights: str = "") -> Any:
        """Returns the `Config` of what `describe` recorded.

        Args:
            weights: file of a network's weights; empty: where they usually are.

        Raises:
            VidsslError: the weights are missing, or are not those recorded.
        """
        return cls.Config(**recorded)
