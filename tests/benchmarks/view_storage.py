"""How frames of pose and mask are stored: bytes, error and time of each codec and size.

    python tests/benchmarks/view_storage.py

What a network would say of people is made up (logits with one peak, or a weak one in noise, for
each joint; soft ellipses with ragged edges), and goes through the code that makes the views of it.
Prints the tables of docs/benchmarks.md. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from vidssl.views import get_view
from vidssl.views.keypoint_rcnn import heatmaps
from vidssl.views.person_segmentation import paste

FRAMES = 10
SIZES = (192, 144, 96, 64)
PEOPLE = (1, 3)
CODECS = ("png", "webp", "jpeg95", "jpeg90")


def noise(draw: np.random.Generator, cells: int, coarse: int, spread: float) -> np.ndarray:
    """Smooth noise: [cells, cells]."""
    values = draw.normal(0, spread, (coarse, coarse)).astype(np.float32)
    return cv2.resize(values, (cells, cells), interpolation=cv2.INTER_CUBIC)


def keypoint_logits(draw: np.random.Generator) -> np.ndarray:
    """Logits of one person: [17, 56, 56]."""
    rows, columns = np.mgrid[:56, :56]
    logits = []
    for _ in range(17):
        (x, y), width = draw.uniform(8, 48, 2), draw.uniform(1.5, 4)
        peak = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
        logits.append(noise(draw, 56, 14, 1.5) + draw.uniform(4, 12) * peak)
    return np.stack(logits)


def mask_share(draw: np.random.Generator) -> np.ndarray:
    """A person's probability: [28, 28]."""
    rows, columns = np.mgrid[:28, :28]
    far = np.hypot((columns - 14) / 11, (rows - 14) / 13)
    return 1 / (1 + np.exp(14 * far - 8 - noise(draw, 28, 9, 3)))


def boxes(draw: np.random.Generator, people: int, size: tuple[int, int]) -> torch.Tensor:
    height = draw.uniform(0.4, 0.95, people) * size[0]
    width = height * draw.uniform(0.35, 0.7, people)
    left = draw.uniform(0, 1, people) * (size[1] - width)
    top = draw.uniform(0, 1, people) * (size[0] - height)
    return torch.from_numpy(np.stack([left, top, left + width, top + height], 1)).float()


def pose_frame(draw: np.random.Generator, people: int, size: tuple[int, int]) -> np.ndarray:
    logits = torch.from_numpy(np.stack([keypoint_logits(draw) for _ in range(people)])).float()
    maps = heatmaps(logits, boxes(draw, people, size), torch.full((people,), 0.95), size)
    return (255 * maps).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()


def mask_frame(draw: np.random.Generator, people: int, size: tuple[int, int]) -> np.ndarray:
    shares = torch.from_numpy(np.stack([mask_share(draw) for _ in range(people)])).float()
    return (
        (255 * paste(shares, boxes(draw, people, size), size)).round().byte().numpy()[0, ..., None]
    )


def measure(view: str, make: Callable[..., np.ndarray]) -> None:
    print(f"| {view} | people | codec | bytes | error | above 20 | encode ms | decode ms |")
    print("|---|---|---|---|---|---|---|---|")
    for short in SIZES:
        for people in PEOPLE:
            draw = np.random.default_rng(0)
            frames = [make(draw, people, (short, short * 4 // 3)) for _ in range(FRAMES)]
            for codec in CODECS:
                print(f"| {short} | {people} | {codec} | {row(view, frames, codec)} |")


def row(view: str, frames: list[np.ndarray], codec: str) -> str:
    stored = get_view(view)
    begin = time.process_time()
    blobs = [stored.encode(frame, codec) for frame in frames]
    middle = time.process_time()
    back = [stored.decode(blob, codec) for blob in blobs]
    end = time.process_time()
    error = np.abs(np.stack(back).astype(int) - np.stack(frames))
    peak = error[np.stack(frames) > 20].mean()
    size = sum(map(len, blobs)) / FRAMES
    encode, decode = 1e3 * (middle - begin) / FRAMES, 1e3 * (end - middle) / FRAMES
    return f"{size:.0f} | {error.mean():.3f} | {peak:.2f} | {encode:.1f} | {decode:.1f}"


if __name__ == "__main__":
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    measure("pose", pose_frame)
    print()
    measure("mask", mask_frame)
