"""Named picture codecs (PNG, WebP, JPEG): encode one picture as one blob, and decode it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from vidssl.base.errors import UsageError

WEBP_SIDE = 16383
NO_PICTURE = "the blob is no picture that OpenCV can read"
# OpenCV 4.11 and later can decode to RGB, and then nothing has to be converted.
IN_ORDER = getattr(cv2, "IMREAD_COLOR_RGB", None) and (
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
)


@dataclass(frozen=True)
class Codec:
    """A way to store a picture, RGB uint8 [H, W, 3] or grey [H, W].

    Attributes:
        name: as recorded in shards, such as ``jpeg95`` or ``png``.
        lossless: whether `decode` gives `encode`'s input back exactly.
    """

    name: str
    lossless: bool
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


@lru_cache(maxsize=32)
def get_codec(name: str) -> Codec:
    """Returns the codec ``png`` or ``webp`` (both lossless), or ``jpegQ`` with Q from 1 to 100.

    Raises:
        UsageError: there is no such codec.
    """
    if name == "png":
        return Codec(name, True, _encode_png, _decode_picture)
    if name == "webp":
        return Codec(name, True, _encode_webp, _decode_webp)
    match = re.fullmatch(r"jpeg(\d{1,3})", name)
    if match and 1 <= int(match[1]) <= 100:
        quality = int(match[1])
        return Codec(name, False, lambda image: _encode_jpeg(image, quality), _decode_picture)
    raise UsageError(
        f"there is no codec named {name!r}: use png or webp (lossless), or jpeg1 to jpeg100, "
        "such as jpeg95"
    )


def _encode_png(image: np.ndarray) -> bytes:
    return _encode(".png", image, [])


def _encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode_webp(image: np.ndarray) -> bytes:
    if max(image.shape[:2]) > WEBP_SIDE:
        raise UsageError(
            f"a picture of {image.shape[1]}x{image.shape[0]} is too large for webp, which has "
            f"{WEBP_SIDE} pixels a side: store it smaller, or with --codec png"
        )
    # OpenCV writes lossless WebP for a quality above 100.
    return _encode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])


def _decode_webp(blob: bytes) -> np.ndarray:
    image = _decode_picture(blob)
    if image.ndim == 3:  # WebP has no grey pictures: those have three equal channels
        red, green, blue = cv2.split(image)
        if np.array_equal(red, green) and np.array_equal(green, blue):
            return red
    return image


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    if image.ndim == 3:  # OpenCV wants blue, green, red
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, blob = cv2.imencode(suffix, image, options)
    if not done:
        raise ValueError(f"OpenCV could not write a {suffix} of shape {image.shape}")
    return blob.tobytes()


def decode_colour(blob: bytes) -> np.ndarray:
    """Decodes any picture, also a grey one, to RGB uint8 [H, W, 3].

    Raises:
        ValueError: the blob is no picture.
    """
    if IN_ORDER is None:
        image = _decode_picture(blob)
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    decoded = cv2.imdecode(np.frombuffer(blob, np.uint8), IN_ORDER)
    if decoded is None:
        raise ValueError(NO_PICTURE)
    return decoded


def _decode_picture(blob: bytes) -> np.ndarray:
    # The blob's header says which format it has, and whether it is grey or colour.
    image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(NO_PICTURE)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
