"""Turns video files into vectors: decoding, derived views, windows and the encoder in one object.

Frames are decoded, resized, encoded and cut as `pack`, `extract-flow` and the evaluation do it, so
the vectors are those of a pack's features, without a pack.

Legend: W windows of a video, D feature width, T frames, C channels, S side of the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.backbones import Encoder
from vidssl.clips.temporal_sampling import span
from vidssl.dataset.video import Source, find_videos
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.evaluation.features import Features, WindowProtocol, embed_videos
from vidssl.retrieval.query_video import QueryFrames, derive_views, derivers_of, one_opencv_thread
from vidssl.views import get_view
from vidssl.views.deriver import Deriver


@dataclass(frozen=True)
class VideoVectors:
    """The vectors of one video.

    Attributes:
        windows: float32 [W, D], as the encoder pools them, not of unit length.
        starts: int64 [W], the first frame of each window.
        frames: of the video, in the encoder's view.
        fps: frames per second; 0 if unknown.
        cover: how many frames a window covers.
    """

    windows: np.ndarray
    starts: np.ndarray
    frames: int
    fps: float
    cover: int

    def mean(self) -> np.ndarray:
        """Returns the video's vector: the mean of its windows at unit length, float32 [D]."""
        offsets = np.array([0, len(self.windows)])
        return Features(("",), self.windows, self.starts, offsets).video_means()[0]

    def times(self) -> list[tuple[float | None, float | None]]:
        """Returns (begin, end) of each window in seconds; None where the rate is unknown."""
        return [
            self.seconds(int(start), min(int(start) + self.cover, self.frames))
            for start in self.starts
        ]

    def seconds(self, first: int, end: int) -> tuple[float | None, float | None]:
        """Returns the times of frames first:end."""
        if self.fps <= 0:
            return None, None
        return round(first / self.fps, 3), round(end / self.fps, 3)


@dataclass(frozen=True)
class VideoEncoder:
    """An encoder, and all that leads from a video file to its input.

    Attributes:
        encoder: the network. `encoder.embed` takes float32 [B, N, C, T, S, S] (B windows of N
            blocks; N is 1 but for DPC and CoCon) and returns float32 [B, D].
        params: {view: how frames are resized and stored, and how flow is computed}.
        label: of the checkpoint, or the file of an exported encoder.
        digest: of the checkpoint or of the file.
        protocol: how windows are cut.
        device: cpu or cuda.
        weights: {view: file of a network that derives it}.
        bounds: of a video.
        notes: what the user should know about where the parameters come from.
    """

    encoder: Encoder
    params: Mapping[str, Mapping[str, Any]]
    label: str
    digest: str
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    device: str = "cpu"
    weights: Mapping[str, str] = field(default_factory=dict)
    bounds: VideoBounds = DEFAULT_BOUNDS
    notes: tuple[str, ...] = ()

    @property
    def view(self) -> str:
        """The view that the encoder looks at, such as rgb or flow."""
        return self.encoder.spec.view

    @property
    def dim(self) -> int:
        """D, the width of a vector."""
        return self.encoder.dim

    @property
    def axes(self) -> dict[str, str]:
        """The axes of what the network takes and returns."""
        return {
            "input": "batch, block, channel, time, height, width",
            "windows": "window, feature",
            "videos": "video, feature",
        }

    @property
    def preprocessing(self) -> dict[str, Any]:
        """All that happens between a video file and the network's input, in this order."""
        spec = self.encoder.spec
        return {
            "view": spec.view,
            "stored_frames": dict(self.params[spec.view]),
            "crop": {"share": self.protocol.crop_share, "crops": self.protocol.crops},
            "size": spec.size,
            "frames": spec.window,
            "blocks": spec.blocks,
            "stride": spec.stride,
            "hop": self.protocol.hop_for(spec),
            "normalisation": get_view(spec.view).normalisation(spec.presentation),
        }

    @cached_property
    def derivers(self) -> dict[str, Deriver]:
        """The networks that derive the view, where one does."""
        return derivers_of([self.view], self.params, self.weights, self.device)

    def decode(self, source: Source) -> QueryFrames:
        """Decodes a video and derives the encoder's view.

        Raises:
            VidsslError: it cannot be decoded, or the view cannot be derived.
        """
        with one_opencv_thread():
            return derive_views(
                source, [self.view], self.params, self.derivers, self.weights, self.bounds
            )

    def embed_frames(self, frames: QueryFrames, name: str) -> VideoVectors:
        """Embeds all windows of a decoded video.

        Raises:
            VidsslError: a vector is not finite; the sentence has `name`.
        """
        found = embed_videos(self.encoder, frames, [0], [name], self.protocol, self.device)
        spec = self.encoder.spec
        return VideoVectors(
            windows=found.windows,
            starts=found.starts,
            frames=int(frames.frame_count(self.view)[0]),
            fps=frames.fps,
            cover=span(spec.window, spec.stride),
        )

    def embed(self, path: Path | str) -> VideoVectors:
        """Decodes and embeds one video file.

        Raises:
            VidsslError: there is no such file, or it cannot be used.
        """
        (source,) = find_videos(path)
        return self.embed_frames(self.decode(source), str(path))
