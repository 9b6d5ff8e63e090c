"""Rendered clips and their flow, packed straight into shards: no video file, no PyAV."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from vidssl.base.files import file_digest
from vidssl.dataset.annotations import ANNOTATIONS_FILE, write_annotations
from vidssl.dataset.synthetic import FPS
from vidssl.dataset.synthetic_scene import MOTIONS, render_clip
from vidssl.shards import ShardWriter, VideoRecord
from vidssl.views import get_view
from vidssl.views.flow import MAP_NAME, quantise
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

BOUND = 12.0  # pixels at 144: in proportion to the published 20 of 240


def make_pack(
    workspace: Workspace, videos: int, length: int, stored: int, workers: int
) -> Artifact:
    """Renders clips and packs RGB and flow, with a test split of every third clip of a class.

    Args:
        length: frames of each video.
        stored: short side of packed frames.
        workers: processes.
    """
    views = {
        "rgb": {"codec": "jpeg90", "stored_size": stored},
        "flow": {
            "codec": "jpeg95",
            "method": "dis",
            "method_params": {"preset": "medium"},
            "bound": BOUND * stored / 144,
            "map": MAP_NAME,
            "working_size": stored,
            "stored_size": None,
        },
    }
    recipe = {"stage": "pack", "views": views, "videos": f"{videos} rendered"}
    make = partial(render_video, views=views, length=length)
    with workspace.open_run("pack", "main", recipe | {"length": length}, {}) as run:
        if run.finished is not None:
            return run.finished
        with ShardWriter(run.folder, views) as writer:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, spawn) as pool:
                for record, blobs in pool.map(make, range(videos), chunksize=4):
                    if record.id not in writer.digests:
                        writer.add(record, blobs)
            digest = writer.finish()
        shown = {view: {"frames": videos * length} for view in views}
        pack = run.publish(digest, {"videos": videos, "views": shown})
    annotate(workspace, pack, videos)
    return pack


def render_video(
    number: int, views: dict[str, dict[str, Any]], length: int
) -> tuple[VideoRecord, dict[str, list[bytes]]]:
    """Returns one clip's record and the encoded frames of both views."""
    cv2.setNumThreads(0)
    stored = views["rgb"]["stored_size"]
    width, height = stored * 4 // 3, stored
    frames = render_clip(MOTIONS[number % len(MOTIONS)], number, length, (width, height))
    flow = [quantise(f, views["flow"]["bound"]) for f in dis_flow(frames)]
    blobs = {
        view: [get_view(view).encode(picture, views[view]["codec"]) for picture in pictures]
        for view, pictures in (("rgb", list(frames)), ("flow", flow))
    }
    name = video_name(number)
    record = VideoRecord(f"{name}#{number:012x}", name, FPS, length, width, height)
    return record, blobs


def dis_flow(frames_THWC: np.ndarray) -> list[np.ndarray]:
    """Returns DIS flow between consecutive frames, float32 [H, W, 2] each."""
    # Not vidssl.optical_flow.algorithms: that reads video files and wants PyAV.
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
    return [dis.calc(a, b, None) for a, b in pairwise(grey)]


def video_name(number: int) -> str:
    motion = MOTIONS[number % len(MOTIONS)]
    return f"{motion}/{motion}_{number // len(MOTIONS):04d}.mp4"


def annotate(workspace: Workspace, pack: Artifact, videos: int) -> None:
    rows = [
        {
            "id": f"{video_name(n)}#{n:012x}",
            "label": MOTIONS[n % len(MOTIONS)],
            "group": str(n),
            "split1": "test" if n // len(MOTIONS) % 3 == 2 else "train",
        }
        for n in range(videos)
    ]
    recipe = {"stage": "annotate", "labels": "rendered"}
    with workspace.open_run("annotations", "main", recipe, {"pack": pack}) as run:
        write_annotations(run.folder, rows, ["split1"])
        run.publish(file_digest(run.folder / ANNOTATIONS_FILE), {"videos": videos})
