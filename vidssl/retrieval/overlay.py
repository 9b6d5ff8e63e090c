"""A frame as filmed, with what other views see of it laid over it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vidssl.views.resize import resize

DIMMED = 0.45  # of the frame's brightness, where something is laid over it


def laid_over(frame: np.ndarray, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns RGB uint8 [H, W, 3]: the frame dimmed, and wherever a picture is brighter, the
    picture.

    Args:
        frame: RGB uint8 [H, W, 3].
        pictures: RGB uint8 of any size, black where there is nothing to see; none: the frame
            as it is.
    """
    if not pictures:
        return frame
    shown = (DIMMED * frame).astype(np.uint8)
    for picture in pictures:
        large = resize(picture, frame.shape[1::-1], cv2.INTER_LINEAR)
        shown = np.maximum(shown, large)
    return shown
