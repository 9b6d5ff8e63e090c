"""BlazePose's published networks on film: joints and mask of a drawn person, wherever it moves.

It needs the extra `pose`, and fetches the wheel of mediapipe 0.10.21, of which it takes two
files and installs nothing. A folder that holds both files, named in VIDSSL_BLAZEPOSE, spares that.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from drawn_person import JOINTS, draw_person
from video_files import write_video

from vidssl.base.optional_packages import is_installed
from vidssl.shards import ShardReader
from vidssl.stages import extract_view
from vidssl.stages.extract_view import ExtractView
from vidssl.views import pose
from vidssl.views.blazepose import weights
from vidssl.workspace.workspace import Workspace

KNOWN = ("9ba9dd3d", "e9a5c5cb")  # how the SHA-256 of both files begins
SHIFTS = [(-50 + 5 * number, number % 4) for number in range(17)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed("ai_edge_litert"), reason="the extra pose is missing"),
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> str:
    if given := os.environ.get("VIDSSL_BLAZEPOSE"):
        return given
    folder = tmp_path_factory.mktemp("wheel")
    words = "download --no-deps --only-binary=:all: --python-version 3.11 mediapipe==0.10.21"
    command = [sys.executable, "-m", "pip", *words.split(), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the wheel of mediapipe cannot be had: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    return str(wheel)


def test_joints_and_mask_of_a_drawn_person_on_film(networks, tmp_path, capfd):
    found = weights.find_weights(networks)
    digests = [hashlib.sha256(part).hexdigest() for part in (found.detector, found.landmarks)]
    assert [d[:8] for d in digests] == list(KNOWN)
    write_video(tmp_path / "videos/a.mp4", np.stack([draw_person(shift) for shift in SHIFTS]))
    settings = (("model", "blazepose"), ("weights", networks))
    options = ExtractView(tmp_path / "videos", "pose,mask", settings, stored=0, workers=1)
    result = extract_view.run(Workspace(tmp_path / "workspace"), options)
    assert result.quarantined == []
    assert "INFO" not in capfd.readouterr().err, "what the library prints spoils the bar"
    reader = ShardReader(result.artifact.path)
    numbers = range(0, len(SHIFTS), 2)
    joints, masks = (reader.frames(view, 0, numbers) for view in ("pose", "mask"))
    for number, heat, mask in zip(numbers, joints, masks, strict=True):
        _check_joints(heat, SHIFTS[number])
        person = np.abs(draw_person(SHIFTS[number]).astype(int) - (190, 200, 195)).max(2) > 30
        seen = mask[..., 0] > 127
        assert (person & seen).sum() / (person | seen).sum() > 0.85


def _check_joints(heat: np.ndarray, shift: tuple[int, int]) -> None:
    for name, (x, y) in JOINTS.items():
        own = heat[..., pose.JOINTS.index(name)]
        row, column = np.unravel_index(int(own.argmax()), own.shape)
        distance = math.dist((column + 0.5, row + 0.5), (x + shift[0], y + shift[1]))
        assert distance < 8, f"{name} is {distance:.1f} px off"
        assert own.max() > 128
