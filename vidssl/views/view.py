"""The contract of a view: how its frames are stored, mirrored and shown to networks and people.

Shapes: T frames, H and W pixels, C channels of the view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from vidssl.base.errors import UsageError
from vidssl.views.codecs import get_codec

if TYPE_CHECKING:
    import torch

    from vidssl.views.deriver import Deriver

NATIVE = "native"


@dataclass(frozen=True)
class Presentation:
    """How a published implementation shows a view to its networks.

    Attributes:
        channels: of the network's input.
        normalisation: what `levels` and `normalise` do, in words.
        levels: converts stored units to what that implementation stores, float in 0..255.
        normalise: converts such levels to the network's input.
        picture: whether the levels are red, green and blue, so that their colour may be changed.
    """

    channels: int
    normalisation: str
    levels: Callable[[torch.Tensor], torch.Tensor]
    normalise: Callable[[torch.Tensor], torch.Tensor]
    picture: bool = False


class View(ABC):
    """A modality of a video: how one of its frames is stored, shown and mirrored.

    Attributes:
        name: in shards, encoders and on the command line.
        channels: C.
        lag: a video of N frames has N - lag frames of this view.
        colour: whether colour augmentation may change it.
        default_codec: a name that :func:`vidssl.views.codecs.get_codec` knows.
        native: what `to_float` does, in words.
        published: {name: presentation} that imported weights were trained with, if not `to_float`.
        command: the command that makes it before pack; empty if pack makes it.
        models: names of vidssl's own networks that make it, those of `--model`; the first is the
            default with CUDA.
    """

    name: ClassVar[str]
    channels: ClassVar[int]
    lag: ClassVar[int] = 0
    colour: ClassVar[bool] = False
    default_codec: ClassVar[str]
    native: ClassVar[str]
    published: ClassVar[Mapping[str, Presentation]] = {}
    command: ClassVar[str] = "extract-view"
    models: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """What its frames show: "film", "motion" (between frames) or "still" (in single frames)."""
        if self.colour:
            return "film"
        return "motion" if self.lag else "still"

    def deriver(self, model: str = "") -> type[Deriver]:
        """Returns the class that derives the view in extract-view.

        A view without `models` need not take the argument.

        Args:
            model: one of `models`; empty: the first.

        Raises:
            UsageError: the view is not made by extract-view.
        """
        how = self.how_to_make("VIDEOS") or "vidssl pack VIDEOS"
        raise UsageError(f"extract-view does not make {self.name}; it is made by: {how}")

    def how_to_make(self, videos: str) -> str:
        """Returns the command line that makes the view before pack; empty if pack makes it."""
        option = f" --view {self.name}" if self.command == "extract-view" else ""
        return f"vidssl {self.command} {videos}{option}" if self.command else ""

    def check_codec(self, codec: str) -> None:
        """Raises a :class:`UsageError` if the view cannot be stored with this codec."""
        get_codec(codec)

    def encode(self, frame: np.ndarray, codec: str | None = None) -> bytes:
        """Encodes one frame, uint8 [H, W, C], as one blob.

        Raises:
            VidsslError: the codec is unknown.
        """
        return get_codec(codec or self.default_codec).encode(self.to_image(frame))

    def decode(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        """Decodes one blob: uint8 [H, W, C].

        Raises:
            ValueError: the blob is no frame of this view.
        """
        return self.from_image(get_codec(codec or self.default_codec).decode(blob))

    def decode_for_copying(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        """Returns what :meth:`decode` does, in the memory order that costs least.

        For callers that copy parts of the frame; others mostly need interleaved channels.
        """
        return self.decode(blob, codec)

    @abstractmethod
    def to_image(self, frame: np.ndarray) -> np.ndarray:
        """Returns a frame, uint8 [H, W, C], as one picture, RGB [H', W', 3] or grey [H', W']."""

    @abstractmethod
    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Returns the frame, uint8 [H, W, C], of a picture of :meth:`to_image`."""

    @abstractmethod
    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the network's input, float32 of the shape of `x`.

        Args:
            x: [..., C, T, H, W] in stored units 0..255, uint8 or float (after augmentation).
        """

    def present(self, x: torch.Tensor, presentation: str = NATIVE) -> torch.Tensor:
        """Returns the network's input as an :class:`~vidssl.backbones.EncoderSpec` describes it.

        Args:
            x: as in :meth:`to_float`.
            presentation: "native" is :meth:`to_float`; others are in `published`.
        """
        return self.normalise(self.levels(x, presentation), presentation)

    def levels(self, x: torch.Tensor, presentation: str = NATIVE) -> torch.Tensor:
        """Returns the input of colour augmentation: as stored here, or as published code stores it.

        Args:
            x: as in :meth:`to_float`.
        """
        return x if presentation == NATIVE else self._published(presentation).levels(x)

    def normalise(self, levels: torch.Tensor, presentation: str = NATIVE) -> torch.Tensor:
        """Returns the network's input from what :meth:`levels` returned."""
        if presentation == NATIVE:
            return self.to_float(levels)
        return self._published(presentation).normalise(levels)

    def is_picture(self, presentation: str = NATIVE) -> bool:
        """Whether :meth:`levels` returns red, green and blue."""
        return self.colour if presentation == NATIVE else self._published(presentation).picture

    def shown_as(self, presentation: str) -> str:
        """Returns `presentation` if the view has it, else "native"."""
        return presentation if presentation in self.published else NATIVE

    def input_channels(self, presentation: str = NATIVE) -> int:
        """Returns the number of channels that :meth:`present` returns.

        Raises:
            UsageError: the view has no such presentation.
        """
        return self.channels if presentation == NATIVE else self._published(presentation).channels

    def normalisation(self, presentation: str = NATIVE) -> str:
        """Returns, in words, how stored values become the network's input."""
        if presentation == NATIVE:
            return self.native
        return self._published(presentation).normalisation

    def _published(self, presentation: str) -> Presentation:
        if presentation not in self.published:
            known = ", ".join([NATIVE, *self.published])
            raise UsageError(f"{self.name} has no presentation {presentation}; it has {known}")
        return self.published[presentation]

    @abstractmethod
    def flip(self, frames: np.ndarray) -> np.ndarray:
        """Mirrors frames, uint8 [T, H, W, C], left to right; also values that are directions."""

    def flip_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Mirrors a tensor, uint8 [C, T, H, W], as :meth:`flip` does, and leaves it on its device.

        This base version copies it to the CPU, which works for every view and is slow on a GPU.
        """
        import torch  # here: extraction workers use views and never need it

        flipped = self.flip(x.permute(1, 2, 3, 0).cpu().numpy())
        return torch.from_numpy(flipped).permute(3, 0, 1, 2).to(x.device)

    def from_planes(self, pictures: torch.Tensor) -> torch.Tensor:
        """Converts picture tensors as :meth:`from_image` does: uint8 [T, P, H', W'] → [T, H, W, C].

        This base version copies them to the CPU, which works for every view and is slow on a GPU.

        Args:
            pictures: P is 3 for colour and 1 for grey.
        """
        import torch

        images = pictures.permute(0, 2, 3, 1).cpu().numpy()
        if images.shape[-1] == 1:
            images = images[..., 0]
        frames = np.stack([self.from_image(np.ascontiguousarray(image)) for image in images])
        return torch.from_numpy(frames).to(pictures.device)

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """Returns a picture of a stored frame, uint8 [H, W, C], for people: RGB uint8 [H, W, 3].

        It is black where there is nothing to see. This base version draws the maximum over channels
        in green, so that a frame below it stays visible.
        """
        picture = np.zeros((*frame.shape[:2], 3), np.uint8)
        picture[..., 1] = frame.max(axis=2)
        return picture

    def activity(self, frames: np.ndarray) -> float:
        """Returns how much there is to see in frames, uint8 [T, H, W, C]: the mean value."""
        return float(frames.mean())


def mirrored(frames: np.ndarray) -> np.ndarray:
    """Returns a copy of frames, uint8 [T, H, W, C], mirrored left to right."""
    turned = np.empty(frames.shape, frames.dtype)
    for frame, out in zip(frames, turned, strict=True):
        cv2.flip(frame, 1, dst=out)
    return turned


def standardise(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Returns (x - mean) / std per channel of [..., C, T, H, W] as float32, `x` untouched."""
    import torch  # here: extraction workers use views and never need it

    y = x.to(torch.float32, copy=True)
    if len({*mean}) == len({*std}) == 1:
        return y.sub_(mean[0]).div_(std[0])
    # Channel by channel, so that no small tensor of constants is copied to the device.
    for channel, (centre, scale) in enumerate(zip(mean, std, strict=True)):
        y.select(-4, channel).sub_(centre).div_(scale)
    return y
