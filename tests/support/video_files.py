"""Small real video files for tests, made with PyAV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
import cv2
import numpy as np


def moving_square(
    frames: int = 8,
    width: int = 64,
    height: int = 48,
    step: tuple[int, int] = (3, 0),
    seed: int = 0,
) -> np.ndarray:
    """A textured square that moves `step` (x, y) pixels per frame over a textured ground.

    uint8 RGB [T, H, W, 3]. The square is 20 pixels wide and starts at (12, 12).
    """
    draw = np.random.default_rng(seed)
    square = _texture(draw, 20, 20)
    clip = np.repeat(_texture(draw, width, height)[None] // 2, frames, axis=0)
    for t in range(frames):
        x, y = 12 + step[0] * t, 12 + step[1] * t
        place = clip[t, y : y + 20, x : x + 20]
        place[:] = square[: place.shape[0], : place.shape[1]]
    return clip


def _texture(draw: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Grey noise in one tint: video codecs halve the resolution of colour."""
    noise = draw.integers(0, 256, (height // 4 + 1, width // 4 + 1)).astype(np.float32)
    grey = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    return (grey[..., None] * (1.0, 0.7, 0.4)).astype(np.uint8)


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    fps: int = 25,
    rotation: int = 0,
    key_frames_only: bool = False,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Encodes frames uint8 RGB [T, H, W, 3], almost without loss, and gives the path.

    Args:
        options: of the encoder, in place of those for speed and quality.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        even = not (stream.width % 2 or stream.height % 2)
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        if options is not None:
            stream.options = dict(options)
        if codec == "libx264" and options is None:
            stream.options = {"crf": "10", "preset": "ultrafast"}
            stream.options |= {"g": "1"} if key_frames_only else {}
        elif codec != "libx264":
            stream.bit_rate = 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Encodes half a second of silence: a container without a picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for _ in range(8):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16000
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path
