"""Videos that tests of extraction share."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_files import moving_square, write_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 5 to 25 frames, and one that cannot be decoded."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        write_video(folder / f"v{number}.mp4", moving_square(5 + 5 * number, seed=number))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder
