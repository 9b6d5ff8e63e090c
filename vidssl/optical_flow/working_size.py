"""The size at which flow is computed, and the pixels in which it is told.

Shapes: H and W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidssl.views.resize import short_side


def working_frame(frame: np.ndarray, size: int | None, colour: bool = False) -> np.ndarray:
    """Returns an RGB frame [H, W, 3] as a method takes it: grey or RGB, at the working size.

    Grey is OpenCV's 0.299 R + 0.587 G + 0.114 B. The short side is scaled down to `size` pixels
    (None: it is not scaled); smaller frames are not enlarged.
    """
    height, width = frame.shape[:2]
    if not colour:
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    working = short_side(width, height, size)
    if working != (width, height):
        frame = cv2.resize(frame, working, interpolation=cv2.INTER_AREA)
    return frame


def in_pixels_of(flow: np.ndarray, size: int | None) -> np.ndarray:
    """Returns flow [H, W, 2] in pixels of frames with a short side of `size`.

    Flow of frames that are smaller is scaled up, so that numbers mean the same motion in small
    and large videos.
    """
    shortest = min(flow.shape[:2])
    return flow if size in (None, shortest) else flow * np.float32(size / shortest)
