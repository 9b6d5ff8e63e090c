"""Short made-up video in which the class is the motion and nothing else.

A few patterned shapes lie on a soft, slowly drifting background and all move in
one way: they bounce, circle, pulse, shake, slide or spin. Everything else (shapes,
patterns, colours, size, place, direction, speed, background, drift) is drawn per
clip from a generator that never sees the motion, so that a single frame, a colour
histogram or a mean frame does not tell the class. And as a control, every scene that
is tested on is shown in each of the motions.

Shapes: T frames, H and W pixels, S side of a sprite, N objects.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.base.signals import deaf_children

SIZE = (128, 128)  # width, height
FRAMES = 32
FPS = 25
SPRITE = 96  # drawn at about twice the size at which it is shown: antialiasing


@dataclass(frozen=True)
class Pose:
    """Where an object is over time, relative to its home: each [T]; scale is a factor."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


# ---------------------------------------------------------------- motions: time → Pose


def _pose(t, draw, x=0.0, y=0.0, angle=0.0, scale=None) -> Pose:
    """Fills up what a motion leaves alone.

    What does not pulse is as large as a pulsing object at a random moment, so that
    the sizes seen in one frame do not tell the motion.
    """
    if scale is None:
        scale = _swell(draw, draw.uniform(0, 2 * np.pi))
    return Pose(*(np.broadcast_to(np.asarray(v, float), t.shape) for v in (x, y, angle, scale)))


def _bounce(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Hops on the spot: a row of parabolas."""
    phase = (t / draw.uniform(11, 15) + draw.random()) % 1
    height = 4 * phase * (1 - phase)
    return _pose(t, draw, y=draw.uniform(0.8, 1.1) * radius * (0.5 - height))


def _circle(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Goes round a small circle without turning."""
    turn = _turns(t, draw, 15, 20)
    reach = draw.uniform(0.45, 0.65) * radius
    return _pose(t, draw, x=reach * np.cos(turn), y=reach * np.sin(turn))


def _pulse(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Grows and shrinks."""
    return _pose(t, draw, scale=_swell(draw, _turns(t, draw, 13, 18)))


def _shake(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Trembles quickly along one line."""
    along = draw.uniform(0, 2 * np.pi)
    reach = draw.uniform(0.2, 0.3) * radius * np.sin(_turns(t, draw, 5, 7))
    return _pose(t, draw, x=reach * np.cos(along), y=reach * np.sin(along))


def _slide(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Moves on in a straight line; `_wrap` lets it come back at the other side."""
    along = draw.uniform(0, 2 * np.pi)
    way = draw.uniform(0.08, 0.12) * radius * (t - t.mean())
    return _pose(t, draw, x=way * np.cos(along), y=way * np.sin(along))


def _spin(t: np.ndarray, draw: np.random.Generator, radius: float) -> Pose:
    """Turns about its own middle."""
    return _pose(t, draw, angle=_turns(t, draw, 16, 24))


def _turns(t: np.ndarray, draw: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    """Phase in radians of a steady rotation with a random period, start and sense."""
    period = draw.uniform(shortest, longest) * draw.choice((-1, 1))
    return 2 * np.pi * (t / period + draw.random())


def _swell(draw: np.random.Generator, turn: np.ndarray | float) -> np.ndarray:
    """Size factor of a pulsing object at phase `turn`."""
    return np.exp(draw.uniform(0.3, 0.45) * np.sin(turn))


_MOVES: dict[str, Callable[[np.ndarray, np.random.Generator, float], Pose]] = {
    "bounce": _bounce,
    "circle": _circle,
    "pulse": _pulse,
    "shake": _shake,
    "slide": _slide,
    "spin": _spin,
}
MOTIONS: tuple[str, ...] = tuple(_MOVES)


# ---------------------------------------------------------------- appearance


def _colour(
    draw: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """A random RGB colour [3] in 0..255 with any hue."""
    hsv = np.array(
        [draw.uniform(0, 360), draw.uniform(*saturation), draw.uniform(*value)], np.float32
    )
    return 255 * cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0]


def _outline(kind: int, theta: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Radius of a closed shape as a function of the angle, at most 1."""
    corners = int(draw.integers(3, 7))
    if kind == 0:
        return np.ones_like(theta)
    if kind == 1:  # polygon with 3 to 6 corners
        sector = np.pi / corners
        return np.cos(sector) / np.cos((theta % (2 * sector)) - sector)
    depth = draw.uniform(0.12, 0.2)  # flower or soft star
    return 1 - depth + depth * np.cos(corners * theta)


def _pattern(kind: int, x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Share of the second colour, 0..1: what makes a turning disc visibly turn."""
    fine = draw.uniform(3.5, 6)
    wave = (
        np.sin(fine * x),  # stripes
        np.sin(fine * x) * np.sin(fine * y),  # checks
        np.sin(2 * np.arctan2(y, x)),  # quarters
        x,  # halves
    )[kind]
    return 1 / (1 + np.exp(-12 * wave))


def _sprite(draw: np.random.Generator, bright: bool) -> np.ndarray:
    """One patterned shape [S, S, 4]: RGB 0..255 times coverage, and coverage 0..1."""
    axis = np.linspace(-1.15, 1.15, SPRITE)
    x, y = np.meshgrid(axis, axis)
    edge = _outline(int(draw.integers(3)), np.arctan2(y, x), draw)
    cover = np.clip((edge - np.hypot(x, y)) * SPRITE / 4 + 0.5, 0, 1)[..., None]
    mix = _pattern(int(draw.integers(4)), x, y, draw)[..., None]
    light, dark = ((0.8, 1.0), (0.45, 0.65)) if bright else ((0.45, 0.6), (0.1, 0.25))
    rgb = (1 - mix) * _colour(draw, (0.4, 1.0), light) + mix * _colour(draw, (0.4, 1.0), dark)
    return np.concatenate([rgb * cover, cover], -1).astype(np.float32)


def _background(
    draw: np.random.Generator, size: tuple[int, int], unit: float, bright: bool
) -> np.ndarray:
    """A soft picture [H, W, 3]: sixteen colours that melt into each other, under pale discs.

    The discs, some units large and lying still, are there so that two backgrounds differ
    in more ways than the moving objects do.
    """
    value = (0.65, 1.0) if bright else (0.05, 0.4)
    colours = np.stack([_colour(draw, (0.1, 0.9), value) for _ in range(16)])
    picture = cv2.resize(colours.reshape(4, 4, 3), size, interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    for _ in range(int(draw.integers(8, 13))):
        distance = np.hypot(x - draw.uniform(0, size[0]), y - draw.uniform(0, size[1]))
        cover = np.clip((draw.uniform(0.06, 0.22) * unit - distance) / 3 + 0.5, 0, 1)[..., None]
        cover *= draw.uniform(0.35, 0.75)
        tint = _colour(draw, (0.1, 0.6), (0.65, 1.0) if bright else (0.15, 0.55))
        picture = (1 - cover) * picture + cover * tint
    return picture.astype(np.float32)


def _still_life(
    draw: np.random.Generator, size: tuple[int, int], radius: float, bright: bool
) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Smaller shapes that lie still behind the moving ones: place, sprite, angle, radius of each.

    How much a moving shape smears the mean over time depends on its motion. Sharp shapes in
    random places, of the moving ones' kind, outweigh that.
    """
    return [
        (
            draw.uniform(0, 1, 2) * size,
            _sprite(draw, bright),
            draw.uniform(0, 2 * np.pi),
            draw.uniform(0.45, 0.75) * radius,
        )
        for _ in range(int(draw.integers(8, 12)))
    ]


def _homes(
    draw: np.random.Generator, count: int, size: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """Places for `count` objects [N, 2] with room for each, and the largest fitting radius."""
    width, height = size
    radius = min(width, height) * (0.25, 0.19, 0.16)[count - 1]
    columns = np.linspace(0, width, count + 1)
    x = draw.uniform(columns[:-1] + 0.3 * width / count, columns[1:] - 0.3 * width / count)
    y = draw.uniform(0.3 * height, 0.7 * height, count)
    return np.stack([x, y], 1), radius


# ---------------------------------------------------------------- frames


def render(
    motion: str, seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """A clip [T, H, W, 3] uint8 RGB of size (width, height), the same for the same arguments.

    One seed gives one appearance: `render("spin", 7)` and `render("slide", 7)` show
    the same objects on the same background. Raises ValueError for an unknown motion.
    """
    if motion not in MOTIONS:
        raise ValueError(f"no motion {motion!r}: there are {', '.join(MOTIONS)}")
    look = np.random.default_rng([seed, 0])
    bright = bool(look.integers(2))
    homes, radius = _homes(look, int(look.integers(1, 4)), size)
    radius *= look.uniform(0.8, 1.0)
    sprites = [_sprite(look, not bright) for _ in homes]
    tilt = look.uniform(0, 2 * np.pi, len(homes))
    drift = look.uniform(-0.25, 0.25, 2)  # pixels per frame, everything together
    still = _still_life(look, size, radius, not bright)

    draw = np.random.default_rng([seed, 1 + MOTIONS.index(motion)])
    t = np.arange(frames, dtype=float)
    poses = [_MOVES[motion](t, draw, radius) for _ in homes]
    margin = int(np.ceil(0.25 * frames)) + 1
    wide = _background(look, (size[0] + 2 * margin, size[1] + 2 * margin), min(size), bright)

    clip = np.empty((frames, size[1], size[0], 3), np.uint8)
    for i in range(frames):
        way = drift * (i - frames / 2)
        view = np.array([[1, 0, margin - way[0]], [0, 1, margin - way[1]]])
        frame = cv2.warpAffine(wide, view, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        for place, sprite, angle, reach in still:
            _paint(frame, sprite, place + way, angle, reach)
        for home, sprite, angle, pose in zip(homes, sprites, tilt, poses, strict=True):
            centre = home + way + (pose.x[i], pose.y[i])
            _paint(
                frame,
                sprite,
                _wrap(centre, radius * pose.scale.max(), size),
                angle + pose.angle[i],
                radius * pose.scale[i],
            )
        clip[i] = np.clip(frame + 0.5, 0, 255)
    return clip


def _wrap(centre: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """What has left the frame on one side comes in again on the other."""
    room = np.asarray(size) + 2.2 * radius
    return (centre + 1.1 * radius) % room - 1.1 * radius


def _paint(
    frame: np.ndarray, sprite: np.ndarray, centre: np.ndarray, angle: float, radius: float
) -> None:
    """Lays a sprite turned by `angle`, `radius` pixels large, over the frame [H, W, 3] in place."""
    (x, y), (height, width) = centre, frame.shape[:2]
    reach = 1.1 * radius + 1  # only the part of the frame that the shape can touch
    left, top = max(math.floor(x - reach), 0), max(math.floor(y - reach), 0)
    right, bottom = min(math.ceil(x + reach) + 1, width), min(math.ceil(y + reach) + 1, height)
    if left >= right or top >= bottom:
        return
    zoom = radius * 2.3 / SPRITE
    cos, sin, middle = zoom * np.cos(angle), zoom * np.sin(angle), (SPRITE - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, x - left - (cos * middle - sin * middle)],
            [sin, cos, y - top - (sin * middle + cos * middle)],
        ]
    )
    layer = cv2.warpAffine(sprite, matrix, (right - left, bottom - top))
    part = frame[top:bottom, left:right]
    # OpenCV, and all three channels at once: many times as fast as NumPy on so small an array.
    left_over = 1 - layer[..., 3]
    cv2.multiply(part, cv2.merge([left_over] * 3), dst=part)
    cv2.add(part, cv2.cvtColor(layer, cv2.COLOR_BGRA2BGR), dst=part)


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class Plan:
    """One clip to make."""

    path: str
    motion: str
    seed: int
    split: str
    scene: str


def plan_clips(clips: int, seed: int = 0) -> Iterator[Plan]:
    """Which clips a folder gets; of each motion every third is for testing.

    Every training clip is a scene of its own. A test scene is shown in all motions, a clip of
    each: whoever sees only the scene gives the six the same answer, and one of them is right.

    The motions come in turn, so counts differ by one at most, and the first clips of a
    larger plan are those of a smaller one.
    """
    for i in range(clips):
        motion, nth = MOTIONS[i % len(MOTIONS)], i // len(MOTIONS)
        split = "test" if nth % 3 == 2 else "train"
        scene = i if split == "train" else nth * len(MOTIONS)
        own = int(np.random.SeedSequence([seed, scene]).generate_state(1)[0])
        path = f"{motion}/{motion}_{nth:04d}.mp4"
        yield Plan(path, motion, own, split, f"scene_{scene:05d}")


def write_clips(
    folder: Path,
    clips: int,
    seed: int = 0,
    frames: int = FRAMES,
    size: tuple[int, int] = SIZE,
    fps: int = FPS,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Path:
    """Makes `folder/<motion>/<motion>_<nnnn>.mp4` and splits.csv, and gives the folder.

    Finished files are left alone, so an interrupted call can be repeated. More than one of
    `workers` means processes.

    Raises VidsslError where the folder holds clips made with another seed or shape.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_with = {"seed": seed, "frames": frames, "size": list(size), "fps": fps}
    _claim(folder, made_with)
    plans = list(plan_clips(clips, seed))
    make = partial(_write_clip, folder, frames=frames, size=size, fps=fps)
    left = [plan for plan in plans if not (folder / plan.path).exists()]
    with progress.task("make clips", len(plans), "clip", len(plans) - len(left)) as task:
        for _ in _in_turn(make, left, workers):
            task.advance()
    _write_splits(folder / "splits.csv", plans)
    return folder


def _in_turn(make: Callable[[Plan], None], plans: list[Plan], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(make, plans)
        return
    # spawn: a fork would copy the locks of whatever threads the caller runs.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        with deaf_children():  # map starts them, all at once
            made = pool.map(make, plans, chunksize=4)
        yield from made
    finally:
        pool.shutdown(cancel_futures=True)


def _write_clip(folder: Path, plan: Plan, frames: int, size: tuple[int, int], fps: int) -> None:
    path = folder / plan.path
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, render(plan.motion, plan.seed, frames, size), fps)


def _claim(folder: Path, made_with: dict[str, object]) -> None:
    """Notes how the folder's clips are made, or finds that they are made otherwise."""
    note = folder / "clips.json"
    if not note.exists():
        _replace_text(note, json.dumps(made_with))
    elif json.loads(note.read_text()) != made_with:
        raise VidsslError(f"{folder} holds clips made with {note.read_text()}: give another folder")


def encode(path: Path, clip: np.ndarray, fps: int = FPS) -> None:
    """Writes a clip [T, H, W, 3] as H.264; the name appears only when the file is whole."""
    import av  # here, because a training machine has no av and may still import this module

    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    with av.open(str(part), "w", format="mp4") as container:
        # One thread: such small pictures are better spread over processes.
        options = {"crf": "18", "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(part, path)


def _write_splits(path: Path, plans: list[Plan]) -> None:
    """splits.csv as `pack --labels` reads it; what shows one scene is one group."""
    rows = [(p.path, p.motion, p.scene, p.split) for p in plans]
    lines = [",".join(row) for row in [("path", "label", "group", "split1"), *rows]]
    _replace_text(path, "\n".join(lines) + "\n")


def _replace_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    os.replace(part, path)
