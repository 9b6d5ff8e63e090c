"""Keeps the vectors of videos that are done beside an unfinished output, for the next attempt.

The folder is `OUTPUT.parts`: `recipe.json` says what the vectors depend on, and each video has one
file, which ends with its checksum.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.checksum_at_end import LENGTH, add_checksum, check_end
from vidssl.base.errors import VidsslError
from vidssl.base.files import atomic_write, write_json
from vidssl.base.stored_json import DamagedFile, open_regular, read_json
from vidssl.dataset.video import Source
from vidssl.retrieval.video_encoder import VideoVectors

RECIPE = "recipe.json"
UNUSABLE = (ValueError, KeyError, EOFError, OSError)


class FinishedVideos:
    """The vectors of finished videos of one output.

    Args:
        recipe: what the vectors depend on, beside the videos. Those of another recipe are dropped.
        new: drop them in any case.
        say: is told about what is dropped.

    Raises:
        VidsslError: the folder is there and is not one of these.
    """

    def __init__(
        self, output: Path, recipe: Mapping[str, Any], new: bool, say: Callable[[str], None]
    ) -> None:
        self.folder = output.with_name(f"{output.name}.parts")
        self._say = say
        if self.folder.exists():
            self._drop_others(dict(recipe), new)
        if not self.folder.exists():
            self.folder.mkdir()
            write_json(self.folder / RECIPE, recipe)

    def _drop_others(self, recipe: dict[str, Any], new: bool) -> None:
        about = self.folder / RECIPE
        if not about.is_file():
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()  # a kill between two lines of __init__
                return
            raise VidsslError(f"{self.folder} is no folder of an earlier embed: rename it")
        if new:
            shutil.rmtree(self.folder)
        elif read_json(about) != recipe:
            self._say(f"{self.folder} is of another encoder or other options: it begins anew")
            shutil.rmtree(self.folder)

    def get(self, source: Source) -> VideoVectors | None:
        """Returns a video's vectors; None where it is not done or its file is damaged."""
        path = self._path(source)
        if not path.exists():
            return None
        try:
            return _read(path)
        except DamagedFile:
            self._say(f"{path} is damaged: {source.path} is embedded again")
            return None

    def put(self, source: Source, vectors: VideoVectors) -> None:
        """Keeps a video's vectors, whole or not at all.

        Raises:
            VidsslError: the disk is full.
        """
        whole = io.BytesIO()
        about = np.array([vectors.frames, vectors.fps, vectors.cover], np.float64)
        np.savez(whole, windows=vectors.windows, starts=vectors.starts, about=about)
        atomic_write(self._path(source), add_checksum(whole.getvalue()))

    def delete(self) -> None:
        """Deletes all of them; called once the output is written."""
        shutil.rmtree(self.folder)

    def _path(self, source: Source) -> Path:
        # The whole path: two folders may each have a video of the same name.
        key = f"{source.path.absolute()}#{source.fingerprint}".encode("utf-8", "surrogateescape")
        return self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.npz"


def _read(path: Path) -> VideoVectors:
    with open_regular(path) as file:
        data = file.read()
    if not check_end(data, path):
        raise DamagedFile(f"{path} is damaged: the checksum at its end is missing")
    try:
        with np.load(io.BytesIO(data[:-LENGTH]), allow_pickle=False) as tables:
            frames, fps, cover = tables["about"].tolist()
            return VideoVectors(
                tables["windows"], tables["starts"], int(frames), float(fps), int(cover)
            )
    except UNUSABLE as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
