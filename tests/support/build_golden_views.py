"""Builds tests/data/formats/views-v1.tar.xz: a view artifact as version 1 writes it.

    python tests/support/build_golden_views.py FOLDER

It was run once, and its archive stays for ever, as that of tests/support/build_golden_formats.py,
which is older than views stored at a stride.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import numpy as np

from vidssl.shards import ShardWriter, VideoRecord
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

ARCHIVE = "views-v1.tar.xz"
HEIGHT, WIDTH, FRAMES, STRIDE = 24, 32, 7, 3
IDS = [f"some/clip {n}.mp4#{n:012x}" for n in range(3)]
POSE = {
    "codec": "webp",
    "stored_size": HEIGHT,
    "stride": STRIDE,
    "interpolation": "linear",
    "derivation": {
        "model": "keypointrcnn_resnet50_fpn",
        "weights": "sha256:" + 8 * "01234567",
        "min_score": 0.8,
        "people": 20,
        "detector_size": 192,
        "precision": "float32",
    },
}


def pose_frame(video: int, frame: int) -> np.ndarray:
    """A bright square for each joint, which moves to the right: uint8 [H, W, 17]."""
    picture = np.zeros((HEIGHT, WIDTH, 17), np.uint8)
    for joint in range(17):
        x, y = 2 * frame + joint % 5, joint + video
        picture[y : y + 3, x : x + 3, joint] = 100 + 5 * joint
    return picture


def build(workspace: Workspace) -> Artifact:
    """Writes the artifact."""
    views = {"pose": POSE}
    recipe = {"stage": "extract-view", "views": views, "videos": IDS}
    with workspace.open_run("view", "pose", recipe, {}) as run:
        with ShardWriter(run.folder, views) as writer:
            for number, video in enumerate(IDS):
                blobs = [
                    b"" if t % STRIDE else get_view("pose").encode(pose_frame(number, t), "webp")
                    for t in range(FRAMES)
                ]
                path = video.partition("#")[0]
                writer.add(VideoRecord(video, path, 25.0, FRAMES, 320, 240, ""), {"pose": blobs})
            digest = writer.finish()
        (run.folder / "quarantine.csv").write_text("id,video,reason\n")
        shown = {"pose": {"frames": FRAMES * len(IDS), **POSE}}
        return run.publish(digest, {"videos": len(IDS), "quarantined": 0, "views": shown})


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    workspace = Workspace(folder / "workspace")
    build(workspace)
    for lock in workspace.root.rglob("*.lock"):
        lock.unlink()
    with tarfile.open(folder / ARCHIVE, "w:xz", preset=9) as archive:
        archive.add(workspace.root, workspace.root.name)
    print(f"wrote {folder / ARCHIVE}, {(folder / ARCHIVE).stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
