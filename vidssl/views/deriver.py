"""The contract of a deriver, which makes a view from decoded frames for `vidssl extract-view`.

A deriver is a class apart from its :class:`vidssl.views.view.View`, so that a machine that only
trains loads no detector: only :meth:`vidssl.views.view.View.deriver` imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.files import file_digest


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
        devices: on which it can compute; it is made for the first where the user's is not here.
        makes: names of the views that :meth:`derive_together` makes in one pass; may be empty.

    Args:
        config: a `Config`.
        device: cpu or cuda.
    """

    Config: ClassVar[type] = NoConfig
    stride: ClassVar[int] = 1
    stored_size: ClassVar[int | None] = 128
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    makes: ClassVar[tuple[str, ...]] = ()

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

    def derive_together(
        self, views: Sequence[str], frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Yields {view: frame} of several views, each frame as :meth:`derive` would make it.

        Args:
            views: some of `makes`.
        """
        raise NotImplementedError(f"{type(self).__name__} makes one view at a time")

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

        This base version leaves out what is recorded beside the fields of `Config`. A field
        `weights` that was recorded as a digest, `sha256:…`, is set to the file that is given.

        Args:
            weights: file of a network's weights; empty: torch's cache, where a deriver knows how
                to look there.

        Raises:
            VidsslError: the weights are missing, or are not those recorded.
        """
        known = {field.name for field in fields(cls.Config)}
        settings = {name: value for name, value in recorded.items() if name in known}
        digest = settings.get("weights")
        if weights and "weights" not in known:
            raise UsageError(f"--weights {weights} has no use: this view was made without any")
        if isinstance(digest, str) and digest.startswith("sha256:"):
            if not weights:
                raise MissingInput(
                    f"the weights that were used ({digest[:15]}…) are recorded by their digest "
                    "alone: name their file with --weights"
                )
            path = Path(weights)
            if not path.is_file():
                raise MissingInput(f"there is no file of weights {weights}")
            if f"sha256:{file_digest(path)}" != digest:
                raise VidsslError(
                    f"{weights} holds other weights than those that were used ({digest[:15]}…)"
                )
        if weights:
            settings["weights"] = weights
        return cls.Config(**settings)
