"""Draws derived views over an RGB frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vidssl.views.resize import resize

DIMMED = 0.45  # share of the frame's brightness that is kept


def overlay_pictures(frame: np.ndarray, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the dimmed frame, and where a picture is brighter, the picture: uint8 [H, W, 3].

    Args:
        frame: RGB uint8 [H, W, 3].
        pictures: RGB uint8 of any size, black where there is nothing to see; if there are none, the
            frame is returned as it is.
    """
    if not pictures:
        return frame
    shown = (DIMMED * frame).astype(np.uint8)
    for picture in pictures:
        large = resize(picture, frame.shape[1::-1], cv2.INTER_LINEAR)
        shown = np.maximum(shown, large)
    return shown
