"""Today's code reads view artifacts that version 1 wrote (see
tests/workspace/test_golden_formats.py).
"""

from __future__ import annotations

import json
import tarfile

import build_golden_views as golden
import numpy as np
import pytest
from paths import DATA

from vidssl.base.errors import VidsslError
from vidssl.shards import ShardReader
from vidssl.stages import verify
from vidssl.workspace.artifacts import MANIFEST, Artifact, canonical_digest
from vidssl.workspace.workspace import Workspace

ARCHIVE = DATA / "formats" / golden.ARCHIVE


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Workspace(tmp_path / "workspace")


def test_every_byte_is_what_its_record_says(workspace):
    (finding,) = verify.run(workspace).findings
    assert finding.artifact == "view/pose/v001" and not finding.problems


def test_stored_frames_and_those_between(workspace):
    (artifact,) = workspace.artifacts("view")
    with ShardReader(artifact.path) as reader:
        assert reader.views == {"pose": golden.POSE}
        assert reader.digest == artifact.digest
        assert reader.frame_count("pose").tolist() == [golden.FRAMES] * 3
        for video in range(3):
            found = reader.frames("pose", video, range(golden.FRAMES))
            shown = np.stack([golden.pose_frame(video, t) for t in range(golden.FRAMES)])
            np.testing.assert_array_equal(found[:: golden.STRIDE], shown[:: golden.STRIDE])
            third = (2 * shown[0].astype(float) + shown[3]) / 3
            assert np.abs(found[1] - third).max() <= 0.5


def test_another_version_is_refused(workspace):
    (artifact,) = workspace.artifacts("view")
    path = artifact.path / MANIFEST
    text = json.loads(path.read_text()) | {"format_version": 99}
    body = {key: value for key, value in text.items() if key != "checksum"}
    path.write_text(json.dumps(body | {"checksum": canonical_digest(body)}))
    with pytest.raises(VidsslError, match=r"view.*99"):
        Artifact.load(artifact.path)
