"""Augmentation policies: each is one set of values for all augmentation settings.

`truthful` is this project's own: mirrored flow still shows the true motion, and nothing flickers.
The others do exactly what published code does, so that a published run can be repeated;
docs/methods.md lists where that is unusual, and why it is kept. A recipe names its policy and may
then change any single setting.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.views import VIEWS
from vidssl.views.view import NATIVE

# The allowed values of settings that are words.
WORDS = {
    "crop": ("area", "square"),
    "crop_ratio": ("log-uniform", "uniform-or-inverse"),
    "crop_fallback": ("square", "whole"),
    "resize": ("area", "bilinear", "bicubic", "nearest"),
    "blur_kind": ("gaussian", "boxes"),
    "per_frame": ("nothing", "gray-channel", "colour"),
}
CHANCES = ("flip", "jitter", "gray", "blur", "channel_shuffle", "one_clip", "strong")


@dataclass(frozen=True)
class AugmentSpec:
    """The settings by which a training clip is augmented. Defaults: the policy `truthful`.

    Ranges and chances (the defaults are CoCLR's):

    Attributes:
        crop_area_min, crop_area_max: share of the frame's area that a crop covers.
        crop_ratio_min, crop_ratio_max: its width over its height.
        flip, jitter, gray, blur, channel_shuffle: probabilities per clip.
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - x), 1 + x].
        hue: shift drawn from [-x, x] of a full turn.
        blur_sigma_min, blur_sigma_max: in pixels of the network's input.

    Settings in which policies differ:

    Attributes:
        policy: the entry of :data:`POLICIES` whose values hold for all settings not given.
        one_clip: where two clips of a video are made, the probability that both have the same
            frames, one of them changed in colour and the other not.
        strong: otherwise, each clip's probability of being changed in colour at all.
        crop: "area": by area and ratio; "square": of `crop_square` of the short side.
        crop_ratio: "log-uniform", or "uniform-or-inverse": uniform, or with probability 0.5 one
            over it.
        crop_attempts: draws of area and ratio until a crop fits into the frame.
        crop_fallback: the crop if none fits: "square", the largest, centred; "whole", the frame.
        crop_candidates: for views other than film, the number of squares that are drawn; the one
            with the most activity (:meth:`vidssl.views.View.activity`) is taken. Their side is
            `crop_square` in motion, `crop_square_still` in poses and masks. 0: these views are
            cropped as film is.
        resize: "area" averages when shrinking and is bilinear when enlarging; "bilinear" and
            "bicubic" widen their filter when shrinking, as PIL does; "nearest".
        per_frame: what is drawn for every frame: "nothing"; "gray-channel": which channel is used
            as grey, also for every view; "colour": all colour changes, and whether they happen.
        gray_first: grey before jitter, not after.
        blur_kind: "gaussian", or "boxes": three box filters in a row, as PIL does.
        shared: views share all that is drawn for a clip; else they share only its frames.
        presentation: how new networks see flow: native, or a published form.
        motion_as_picture: flow shown as a colour picture is treated as one: changed in colour,
            and mirrored without changing the sign of u.
        motion_mirrored: views other than film are mirrored as well.
    """

    crop_area_min: float = 0.2
    crop_area_max: float = 1.0
    crop_ratio_min: float = 3 / 4
    crop_ratio_max: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma_min: float = 0.1
    blur_sigma_max: float = 2.0
    channel_shuffle: float = 0.0

    policy: str = "truthful"
    one_clip: float = 0.0
    strong: float = 1.0
    crop: str = "area"
    crop_square: float = 224 / 240
    crop_square_still: float = 153 / 192
    crop_ratio: str = "log-uniform"
    crop_attempts: int = 10
    crop_fallback: str = "square"
    crop_candidates: int = 0
    resize: str = "area"
    per_frame: str = "nothing"
    gray_first: bool = False
    blur_kind: str = "gaussian"
    shared: bool = True
    presentation: str = NATIVE
    motion_as_picture: bool = False
    motion_mirrored: bool = True

    def __post_init__(self) -> None:
        known = {**WORDS, "presentation": presentations()}
        for name, words in known.items():
            _one_of(name, getattr(self, name), words)
        for name in CHANCES:
            chance = getattr(self, name)
            require(name, chance, 0 <= chance <= 1, "a probability, from 0 to 1")
        for name, least in (("crop_attempts", 1), ("crop_candidates", 0)):
            require(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        for name in ("crop_square", "crop_square_still"):
            share = getattr(self, name)
            require(name, share, 0 < share <= 1, "above 0 and at most 1")
        for name, most in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            require(f"{name}_max", high, high <= most, f"at most {most:g}")
            require(f"{name}_min", low, 0 < low <= high, f"above 0 and at most {name}_max, {high}")
        for name in ("brightness", "contrast", "saturation"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("hue", self.hue, 0 <= self.hue <= 0.5, "from 0 to 0.5")
        if self.crop_candidates and self.shared:
            raise UsageError("crop_candidates are of single views: give shared=false as well")

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings that identify a run.

        Settings added after the ranges are left out where they have the value of `truthful`, so
        that older runs keep their identity.
        """
        later = [f for f in dataclasses.fields(self) if f.name not in _RANGES]
        told = [f.name for f in later if getattr(self, f.name) != f.default]
        return {name: getattr(self, name) for name in (*_RANGES, *told)}


_NAMES = [f.name for f in dataclasses.fields(AugmentSpec)]
_RANGES = tuple(_NAMES[: _NAMES.index("policy")])


def presentations() -> tuple[str, ...]:
    """Returns the names of all presentations of all views."""
    return (NATIVE, *dict.fromkeys(name for view in VIEWS.values() for name in view.published))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"there is no {name} {value}{nearest_name(value, known)}; there are {', '.join(known)}"
        )


# What the code of DPC and CoCon does to film of UCF101 and HMDB51; on Kinetics it crops by area.
_BLOCKS = AugmentSpec(
    crop="square",  # 224 px of 240
    resize="nearest",
    flip=0.5,
    gray=0.5,
    gray_first=True,
    jitter=1.0,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.25,
    blur=0.0,
    per_frame="colour",
)

POLICIES: dict[str, AugmentSpec] = {
    "truthful": AugmentSpec(),
    # CoCLR's and ViCC's code: InfoNCE, UberNCE, CoCLR, ViCC, for rgb and flow alike.
    "coclr": AugmentSpec(
        policy="coclr",
        one_clip=0.5,
        strong=0.3,
        crop="area",
        crop_area_min=0.2,
        crop_area_max=1.0,
        crop_ratio_min=3 / 4,
        crop_ratio_max=4 / 3,
        crop_ratio="uniform-or-inverse",
        crop_attempts=1,
        crop_fallback="whole",
        resize="bicubic",
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        gray=0.2,
        per_frame="gray-channel",
        blur=0.5,
        blur_sigma_min=0.1,
        blur_sigma_max=2.0,
        blur_kind="boxes",
        shared=True,
        presentation="coclr",
        motion_as_picture=True,
    ),
    # DPC's code: rgb alone.
    "dpc": dataclasses.replace(_BLOCKS, policy="dpc"),
    # CoCon's code: rgb as DPC; other views are cropped where most happens, and never mirrored.
    "cocon": dataclasses.replace(
        _BLOCKS,
        policy="cocon",
        shared=False,
        crop_candidates=3,
        motion_mirrored=False,
        presentation="cocon",
    ),
}

# How the same code finetunes: one clip of a video, with weaker changes.
POLICIES |= {
    "coclr-finetune": dataclasses.replace(
        POLICIES["coclr"],
        policy="coclr-finetune",
        one_clip=0.0,
        strong=1.0,
        crop_attempts=10,
        crop_fallback="square",
        jitter=0.3,
        gray=0.0,
        per_frame="nothing",
        blur=0.0,
    ),
    "dpc-finetune": AugmentSpec(
        policy="dpc-finetune",
        crop="area",
        crop_area_min=0.5,
        crop_area_max=1.0,
        crop_ratio="uniform-or-inverse",
        crop_attempts=10,
        crop_fallback="square",
        resize="bilinear",
        flip=0.5,
        jitter=0.3,
        brightness=0.5,
        contrast=0.5,
        saturation=0.5,
        hue=0.25,
        gray=0.0,
        blur=0.0,
    ),
}
POLICIES["cocon-finetune"] = dataclasses.replace(
    POLICIES["dpc-finetune"], policy="cocon-finetune", presentation="cocon"
)


def get_policy(name: str) -> AugmentSpec:
    """Returns the policy called `name`.

    Raises:
        UsageError: there is none; the sentence names the nearest and lists all.
    """
    _one_of("policy", name, tuple(POLICIES))
    return POLICIES[name]
