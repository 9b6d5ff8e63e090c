"""Finds the files of BlazePose's two networks and reads them; nothing is downloaded.

They come as a task file of Google's, which is a zip file of both; as a folder that holds both; as
two files; or inside the wheel of the package mediapipe, which is a zip file as well.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.base.files import open_regular

ADDRESS = (
    "https://storage.googleapis.com/mediapipe-models/pose_landmarker/pose_landmarker_full/float16/"
    "latest/pose_landmarker_full.task"
)
CACHED = tuple(f"pose_landmarker_{size}.task" for size in ("full", "lite", "heavy"))
DETECTORS = ("pose_detector.tflite", "pose_detection.tflite")
LANDMARKS = (
    "pose_landmarks_detector.tflite",
    "pose_landmark_full.tflite",
    "pose_landmark_lite.tflite",
    "pose_landmark_heavy.tflite",
)
MOST_BYTES = 64 * 2**20  # of one network; the largest published one has 27 MB


@dataclass(frozen=True)
class Weights:
    """Both networks.

    Attributes:
        detector, landmarks: bytes of their files.
        where: the path they came from, for messages.
    """

    detector: bytes
    landmarks: bytes
    where: str

    @property
    def digest(self) -> str:
        """The SHA-256 of both files, as it is recorded: the same from whatever they came."""
        both = (hashlib.sha256(part).hexdigest() for part in (self.detector, self.landmarks))
        return "sha256:" + "+".join(both)


def cache_folder() -> Path:
    """Returns torch's cache of weights, as torch itself finds it, without loading PyTorch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def cached_file() -> Path | None:
    """Returns the task file in the user's cache, the full network first; None if there is none."""
    paths = (cache_folder() / name for name in CACHED)
    return next((path for path in paths if path.is_file()), None)


def find_weights(given: str) -> Weights:
    """Reads both networks.

    Args:
        given: a task file, a wheel, a folder, or two files with a comma between; empty: the cache.

    Raises:
        MissingInput: they are not there; the sentence says how to get them.
        VidsslError: a file cannot be read, or holds something else.
    """
    if not given:
        path = cached_file()
        if path is None:
            raise MissingInput(
                f"the weights of blazepose are not here: download {ADDRESS} to {cache_folder()}, "
                "or name a file of them with --weights"
            )
        return _read(str(path.resolve()), _state(path))
    paths = [Path(part) for part in _parts(given)]
    for path in paths:
        if not path.exists():
            raise MissingInput(f"there is no file of weights {path}")
    return _read(",".join(str(p.resolve()) for p in paths), tuple(map(_state, paths)))


def _parts(given: str) -> list[str]:
    """Returns the path, or both if two are given; a comma may also be part of one name."""
    return [given] if Path(given).exists() else [part.strip() for part in given.split(",")]


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=2)
def _read(where: str, state: object) -> Weights:
    """Reads the networks; `state` is of the files, so that changed ones are read again."""
    paths = [Path(part) for part in _parts(where)]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(p for p in paths[0].iterdir() if p.name in DETECTORS + LANDMARKS)
        if len(paths) != 2:
            raise _wrong(where)
    if len(paths) == 1:
        return _from_zip(paths[0])
    if len(paths) != 2:
        raise _wrong(where)
    first = [path for path in paths if path.name in DETECTORS]
    if len(first) != 1:
        raise _wrong(where)
    (second,) = (path for path in paths if path not in first)
    return Weights(_read_file(first[0]), _read_file(second), where)


def _read_file(path: Path) -> bytes:
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise VidsslError(f"{path} is no network of BlazePose's: it is too large")
    return content


def _from_zip(path: Path) -> Weights:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as entries:
            return Weights(
                _entry(entries, DETECTORS, path), _entry(entries, LANDMARKS, path), str(path)
            )
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise _wrong(str(path)) from error


def _entry(entries: zipfile.ZipFile, names: tuple[str, ...], path: Path) -> bytes:
    """Reads the one file in a zip file that has one of these names, in any folder of it."""
    found = [i for i in entries.infolist() if PurePosixPath(i.filename).name in names]
    if len(found) != 1:
        raise _wrong(str(path))
    with entries.open(found[0]) as file:  # not what the directory says about its size
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise VidsslError(f"{path} holds no network of BlazePose's: {names[0]} is too large")
    return content


def _wrong(where: str) -> VidsslError:
    return VidsslError(
        f"{where} holds no weights of blazepose: name a task file such as {CACHED[0]}, a folder "
        f"with {DETECTORS[0]} and {LANDMARKS[0]}, or both files with a comma between"
    )
