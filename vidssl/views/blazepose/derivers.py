"""Derives the views pose and mask with BlazePose, each alone or both in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from vidssl.base.errors import UsageError, VidsslError
from vidssl.views.blazepose import detector, landmarks
from vidssl.views.blazepose.detector import PersonDetector
from vidssl.views.blazepose.drawing import draw_joints, draw_masks
from vidssl.views.blazepose.interpreter import Network, require_interpreter
from vidssl.views.blazepose.landmarks import LandmarkNetwork, Person
from vidssl.views.blazepose.tracking import Tracker
from vidssl.views.blazepose.weights import find_weights
from vidssl.views.deriver import Deriver
from vidssl.views.resize import resize, short_side

DETECTOR_SIZE = 512


@dataclass(frozen=True)
class BlazePoseConfig:
    """Settings of both views.

    Attributes:
        model: blazepose.
        weights: a file; empty: in torch's cache.
        min_score: detections with a lower score are ignored.
        min_presence: a person who is followed is lost below this probability that there is one.
        people: most people per frame.
        spread: of pose, the standard deviation of a joint's Gaussian, in 64ths of the side of the
            person's region.
        detector_size: frames with a longer short side are scaled down to it first; 0: 512.
    """

    model: str = "blazepose"
    weights: str = ""
    min_score: float = 0.4
    min_presence: float = 0.5
    people: int = 1
    spread: float = 1.0
    detector_size: int = 0


class BlazePoseDeriver(Deriver):
    """Makes frames of joints and masks; the classes below make one of them."""

    Config = BlazePoseConfig
    stride = 2
    stored_size = 96
    devices = ("cpu",)
    makes = ("pose", "mask")
    view: ClassVar[str]

    def __init__(self, config: BlazePoseConfig, device: str = "cpu") -> None:
        super().__init__(config, device)
        weights = find_weights(config.weights)
        self._detector = PersonDetector(
            Network(weights.detector, weights.where, detector.SIDE, detector.SHAPES)
        )
        self._landmarks = LandmarkNetwork(
            Network(weights.landmarks, weights.where, landmarks.SIDE, landmarks.SHAPES)
        )

    def derive(
        self, frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[np.ndarray]:
        for made in self.derive_together((self.view,), frames, stride, size):
            yield made[self.view]

    def derive_together(
        self, views: Sequence[str], frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[Mapping[str, np.ndarray]]:
        config = self.config
        tracker = Tracker(
            self._detector, self._landmarks, config.people, config.min_score, config.min_presence
        )
        for frame in islice(frames, 0, None, stride):
            height, width = frame.shape[:2]
            stored = short_side(width, height, size)
            seen = resize(frame, short_side(width, height, config.detector_size or DETECTOR_SIZE))
            people = tracker.follow(seen)
            scale = stored[0] / seen.shape[1]
            yield {view: self._draw(view, people, scale, stored) for view in views}

    def _draw(
        self, view: str, people: Sequence[Person], scale: float, size: tuple[int, int]
    ) -> np.ndarray:
        if view == "mask":
            return draw_masks(people, scale, size)
        return draw_joints(people, scale, size, self.config.spread)

    @classmethod
    def describe(cls, config: Any, device: str) -> dict[str, Any]:
        if config.people < 1:
            raise UsageError(f"people={config.people} makes no sense: give 1 or more")
        if config.detector_size and config.detector_size < 16:
            raise UsageError(
                f"--detector-size {config.detector_size} is too small for a picture: give 16 or "
                "more, or 0"
            )
        if not config.spread > 0:
            raise UsageError(f"spread={config.spread} makes no sense: give more than 0")
        require_interpreter()
        return asdict(config) | {
            "weights": find_weights(config.weights).digest,
            "detector_size": config.detector_size or DETECTOR_SIZE,
        }

    @classmethod
    def recall(cls, recorded: Mapping[str, Any], weights: str = "") -> Any:
        config = replace(cls.Config(**recorded), weights=weights)
        require_interpreter()
        found = find_weights(weights)
        if found.digest != recorded["weights"]:
            raise VidsslError(
                f"{found.where} holds other weights of blazepose than those that were used "
                f"({recorded['weights'][:15]}…): name their file with --weights"
            )
        return config


class BlazePoseJoints(BlazePoseDeriver):
    """Makes the view pose."""

    view = "pose"


class BlazePoseMask(BlazePoseDeriver):
    """Makes the view mask."""

    view = "mask"
