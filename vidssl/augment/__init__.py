"""Augmentation of clips: policies, random draws, cropping and resizing, colour changes."""

from vidssl.augment.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_colour,
    box_blur,
    box_radius,
    gaussian_blur,
)
from vidssl.augment.crop_resize import box_slices, crop, crop_resize
from vidssl.augment.policy import POLICIES, AugmentSpec, get_policy
from vidssl.augment.random_draws import (
    WHOLE_FRAME,
    Box,
    ClipDraw,
    ClipTimes,
    ColourDraw,
    centre_square,
    draw_box,
    draw_clip,
    draw_clip_times,
    draw_colour,
    draw_views,
)
from vidssl.augment.resize_weights import resize_on_device

__all__ = [
    "POLICIES",
    "WHOLE_FRAME",
    "AugmentSpec",
    "Box",
    "ClipDraw",
    "ClipTimes",
    "ColourDraw",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "apply_colour",
    "box_blur",
    "box_radius",
    "box_slices",
    "centre_square",
    "crop",
    "crop_resize",
    "draw_box",
    "draw_clip",
    "draw_clip_times",
    "draw_colour",
    "draw_views",
    "gaussian_blur",
    "get_policy",
    "resize_on_device",
]
