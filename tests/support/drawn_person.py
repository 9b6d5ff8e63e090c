"""Draws a person in flat colours, whom a pose network takes for one, and tells where joints are."""

from __future__ import annotations

import cv2
import numpy as np

SKIN, SHIRT, TROUSERS, HAIR = (224, 172, 140), (40, 70, 160), (50, 50, 60), (60, 40, 30)
# In a frame of 320×240; left is the person's own left, on the right of the picture.
JOINTS = {
    "left_shoulder": (180, 82), "right_shoulder": (140, 82),
    "left_elbow": (200, 108), "right_elbow": (120, 108),
    "left_wrist": (212, 134), "right_wrist": (108, 134),
    "left_hip": (172, 136), "right_hip": (148, 136),
    "left_knee": (174, 174), "right_knee": (146, 174),
    "left_ankle": (175, 210), "right_ankle": (145, 210),
}  # fmt: skip


def draw_person(shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Returns a frame, RGB uint8 [240, 320, 3], with the person moved by `shift` pixels."""
    large = np.full((960, 1280, 3), (190, 200, 195), np.uint8)
    place = {name: _at(point, shift) for name, point in JOINTS.items()}
    for side in ("left", "right"):
        ankle = place[f"{side}_ankle"]
        cv2.ellipse(large, (ankle[0], ankle[1] + 16), (38, 20), 0, 0, 360, (30, 30, 30), -1)
        cv2.line(large, place[f"{side}_hip"], place[f"{side}_knee"], TROUSERS, 72)
        cv2.line(large, place[f"{side}_knee"], ankle, TROUSERS, 56)
        cv2.line(large, place[f"{side}_shoulder"], place[f"{side}_elbow"], SHIRT, 46)
        cv2.line(large, place[f"{side}_elbow"], place[f"{side}_wrist"], SKIN, 36)
        wrist = place[f"{side}_wrist"]
        cv2.circle(large, (wrist[0], wrist[1] + 14), 24, SKIN, -1)
    trunk = [
        place["left_shoulder"], place["right_shoulder"], place["right_hip"], place["left_hip"],
    ]  # fmt: skip
    cv2.fillPoly(large, [np.array(trunk)], SHIRT)
    cv2.polylines(large, [np.array(trunk)], True, SHIRT, 40)
    cv2.line(large, _at((160, 80), shift), _at((160, 64), shift), SKIN, 46)
    cv2.ellipse(large, _at((160, 52), shift), (56, 72), 0, 0, 360, SKIN, -1)
    cv2.ellipse(large, _at((160, 42), shift), (60, 50), 0, 180, 360, HAIR, -1)
    for side in (-1, 1):
        cv2.ellipse(large, _at((160 + side * 5, 51), shift), (9, 5), 0, 0, 360, (255, 255, 255), -1)
        cv2.circle(large, _at((160 + side * 5, 51), shift), 5, (40, 30, 20), -1)
    cv2.ellipse(large, _at((160, 57), shift), (6, 9), 0, 0, 360, (200, 140, 110), -1)
    cv2.ellipse(large, _at((160, 63), shift), (18, 6), 0, 0, 360, (180, 70, 70), -1)
    return cv2.resize(large, (320, 240), interpolation=cv2.INTER_AREA)


def _at(point: tuple[int, int], shift: tuple[int, int]) -> tuple[int, int]:
    return 4 * (point[0] + shift[0]), 4 * (point[1] + shift[1])
