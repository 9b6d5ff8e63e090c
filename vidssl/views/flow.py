"""The flow view: the motion of each pixel to the next frame, in 8 bits.

A stored frame is [H, W, 2]: u (to the right) and v (downward), in pixels of the recorded working
size, clipped to ±bound and mapped to 1..255 so that 128 is exactly no motion:

    stored = round(flow · 127 / bound) + 128

Frame i is the motion from RGB frame i to i + 1. CoCLR's published code maps with
round((flow + 20) · 255 / 40), where no motion becomes 128 too but means +0.078 px
(docs/methods.md), and writes colour JPEG. The codec "coclr" stores flow in that way; reading it
converts it to the levels above. :func:`read_pixels` returns either kind in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

import cv2
import numpy as np

from vidssl.views.codecs import get_codec
from vidssl.views.rgb import standardise_rgb
from vidssl.views.stacked_channels import StackedView
from vidssl.views.view import Presentation, mirrored, standardise

if TYPE_CHECKING:
    import torch

ZERO = 128
STEPS = 127  # levels on each side of zero
MAP_NAME = "round(flow*127/bound)+128"
COCLR = "coclr"  # a codec of the flow view only
COCLR_MAP_NAME = "round((flow+bound)*255/(2*bound))"
COCLR_QUALITY = "jpeg100"

_Array = TypeVar("_Array", "np.ndarray", "torch.Tensor")


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Clips flow [..., 2] in pixels to ±bound; returns its 8-bit form, uint8 in 1..255."""
    level = np.rint(flow * np.float32(STEPS / bound))
    return (np.clip(level, -STEPS, STEPS) + ZERO).astype(np.uint8)


def to_pixels(stored: _Array, bound: float) -> _Array:
    """Returns flow in pixels of the working size, float32, from its 8-bit form of any shape.

    A lossy codec can produce a 0, which is slightly below -bound.
    """
    if isinstance(stored, np.ndarray):
        return (stored.astype(np.float32) - ZERO) * np.float32(bound / STEPS)
    return (stored.float() - ZERO) * (bound / STEPS)


def map_name(codec: str) -> str:
    """Returns the map from pixels to stored levels, as recorded with flow."""
    return COCLR_MAP_NAME if codec == COCLR else MAP_NAME


def store_pixels(flow: np.ndarray, codec: str, bound: float) -> bytes:
    """Encodes one flow, float32 [H, W, 2] in pixels, as one blob.

    Raises:
        UsageError: the codec is unknown.
    """
    if codec == COCLR:
        scaled = (np.clip(flow, -bound, bound) + np.float32(bound)) * np.float32(255 / (2 * bound))
        return _encode_coclr(np.rint(scaled).astype(np.uint8))
    return FlowView().encode(quantise(flow, bound), codec)


def read_pixels(blob: bytes, codec: str, bound: float) -> np.ndarray:
    """Decodes a blob of :func:`store_pixels`: float32 [H, W, 2] in pixels.

    Raises:
        ValueError: the blob is no flow.
    """
    if codec == COCLR:
        levels: np.ndarray = _decode_coclr(blob).astype(np.float32)
        return levels * np.float32(2 * bound / 255) - np.float32(bound)
    return to_pixels(FlowView().decode(blob, codec), bound)


# ── CoCLR's format ───────────────────────────────────────────────────────────────────────────


def _encode_coclr(levels: np.ndarray) -> bytes:
    """Encodes CoCLR's levels, uint8 [H, W, 2], as CoCLR does: blue, green, red are u, v, 128."""
    picture = np.stack([np.full_like(levels[..., 0], ZERO), levels[..., 1], levels[..., 0]], -1)
    return get_codec(COCLR_QUALITY).encode(picture)


def _decode_coclr(blob: bytes) -> np.ndarray:
    picture = get_codec(COCLR_QUALITY).decode(blob)
    if picture.ndim != 3:
        raise ValueError("the picture is grey, and CoCLR's of flow are not")
    return picture[..., :0:-1]


def to_published(x: torch.Tensor) -> torch.Tensor:
    """Returns flow as CoCLR, ViCC and CoCon store it: round((f + bound)·255/(2·bound)).

    Their bound is 20 pixels of the original video. So is ours, scaled to the working size, unless
    `extract-flow --bound` says otherwise.

    Args:
        x: [..., 2, T, H, W] in stored units.
    """
    return ((x.float() - ZERO) / STEPS + 1).mul_(255 / 2).round_()


def colour_picture(x: torch.Tensor) -> torch.Tensor:
    """Returns flow as CoCLR and ViCC show it to networks: 8-bit (128, v, u) [..., 3, T, H, W].

    They write (u, v, 128) as blue, green, red, and read red, green, blue.
    """
    import torch

    u, v = to_published(x).unbind(-4)
    return torch.stack([torch.full_like(u, ZERO), v, u], dim=-4)


def centred(levels: torch.Tensor) -> torch.Tensor:
    """Returns CoCon's input: 8-bit u and v as value/255 − 0.5."""
    return levels.div(255).sub_(0.5)


class FlowView(StackedView):
    """Optical flow from each frame to the next, u above v; N frames of video have N - 1 of it."""

    name: ClassVar[str] = "flow"
    channels: ClassVar[int] = 2
    lag: ClassVar[int] = 1
    default_codec: ClassVar[str] = "jpeg95"
    command: ClassVar[str] = "extract-flow"
    published: ClassVar[Mapping[str, Presentation]] = {
        "coclr": Presentation(
            3,
            "p = round(((x − 128)/127 + 1)·127.5); channels (128, v, u) of p; "
            "(p/255 − mean)/std with ImageNet's mean and std",
            levels=colour_picture,
            normalise=standardise_rgb,
            picture=True,
        ),
        "cocon": Presentation(
            2,
            "p = round(((x − 128)/127 + 1)·127.5); channels (u, v) of p; p/255 − 0.5",
            levels=to_published,
            normalise=centred,
        ),
    }
    native: ClassVar[str] = (
        "channels (u, v); (x − 128)/127 with x stored as round(flow·127/bound) + 128"
    )

    def check_codec(self, codec: str) -> None:
        if codec != COCLR:
            super().check_codec(codec)

    def encode(self, frame: np.ndarray, codec: str | None = None) -> bytes:
        if codec != COCLR:
            return super().encode(frame, codec)
        levels = ((frame.astype(np.float32) - ZERO) / STEPS + 1) * np.float32(255 / 2)
        return _encode_coclr(np.rint(np.clip(levels, 0, 255)).astype(np.uint8))

    def decode(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        if codec != COCLR:
            return super().decode(blob, codec)
        return quantise(_decode_coclr(blob).astype(np.float32) * np.float32(2 / 255) - 1, 1.0)

    def decode_for_copying(self, blob: bytes, codec: str | None = None) -> np.ndarray:
        return (self.decode if codec == COCLR else super().decode_for_copying)(blob, codec)

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [..., 2, T, H, W] in units of the bound: (x - 128) / 127, so -1 to 1."""
        return standardise(x, [ZERO, ZERO], [STEPS, STEPS])

    def flip(self, frames: np.ndarray) -> np.ndarray:
        """Mirrors [T, H, W, 2] left to right and turns u round: 128 + s becomes 128 - s.

        A 0, which only a lossy codec leaves, would become 256 and is held at 255.
        """
        turned = mirrored(frames)
        # u and v as one number, u in its lower half: twice as fast as every other byte. Of 8 bits
        # 256 - u is ~u + 1, but for u = 0, where ~u is 255 already.
        both: np.ndarray = turned.view("<u2")
        both ^= 255
        both += (both & 255) != 255
        return turned

    def flip_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Mirrors [2, T, H, W] left to right and turns u round, a 0 to 255."""
        turned = x.flip(-1)
        # Of 8 bits 256 - u is -u, but for u = 0, which stays.
        u = turned[0].neg_()
        u.masked_fill_(u == 0, 255)
        return turned

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """Shows the direction as a hue, and the speed as brightness: full at a quarter of bound."""
        u, v = (channel.astype(np.float32) - ZERO for channel in np.moveaxis(frame, -1, 0))
        speed, turn = cv2.cartToPolar(u, v, angleInDegrees=True)
        value = np.minimum(speed * (4 * 255 / STEPS), 255)
        hue = np.stack([turn / 2, np.full_like(value, 255), value], axis=-1)
        return cv2.cvtColor(hue.astype(np.uint8), cv2.COLOR_HSV2RGB)

    def activity(self, frames: np.ndarray) -> float:
        """Returns how much moves in frames uint8 [T, H, W, 2]: the mean of |u| and |v|."""
        return float(np.abs(frames.astype(np.int16) - ZERO).mean())
