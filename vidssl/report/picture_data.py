"""Turns frames into pictures that lie within a page: JPEG, and short loops as animated WebP."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from vidssl.base.errors import VidsslError

JPEG_QUALITY = 72
LOOP_MILLISECONDS = 120  # for each frame of a loop


def jpeg_uri(picture: np.ndarray) -> str:
    """Returns an RGB picture, uint8 [H, W, 3], as a data URI."""
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise VidsslError("OpenCV cannot write a JPEG picture")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def loop_uri(pictures: Sequence[np.ndarray]) -> str:
    """Returns RGB pictures of one size, uint8 [H, W, 3], as an endless animated WebP."""
    animation = cv2.Animation()
    animation.frames = [
        np.ascontiguousarray(np.dstack([p[..., ::-1], np.full(p.shape[:2], 255, np.uint8)]))
        for p in pictures
    ]
    animation.durations = [LOOP_MILLISECONDS] * len(pictures)
    animation.loop_count = 0
    done, data = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, 40])
    if not done:
        raise VidsslError("OpenCV cannot write an animated WebP picture")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()


def to_width(picture: np.ndarray, width: int) -> np.ndarray:
    """Returns a picture, uint8 [H, W, 3], scaled to a width."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=how)


def side_by_side(pictures: Sequence[np.ndarray], gap: int = 2) -> np.ndarray:
    """Returns pictures of one height in a row, grey between them."""
    height = pictures[0].shape[0]
    between = np.full((height, gap, 3), 128, np.uint8)
    parts = [part for picture in pictures for part in (between, picture)][1:]
    return np.hstack(parts)
