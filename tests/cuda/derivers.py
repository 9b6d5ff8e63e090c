"""How fast views are derived from frames, and flow from pairs, with networks of random weights.

Speed does not depend on what weights say, but for how many people they find: three in each frame.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from vidssl.dataset.synthetic_scene import MOTIONS, render_clip
from vidssl.optical_flow.algorithms import RAFT_PRESETS, flow_method
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.raft import with_weights
from vidssl.views import get_view
from vidssl.views.deriver import Deriver

PEOPLE = 3
MODELS = {"pose": "keypointrcnn_resnet50_fpn", "mask": "maskrcnn_resnet50_fpn_v2"}


def random_weights(model: str, folder: Path) -> Path:
    """Writes random weights with which people are everywhere."""
    torch.manual_seed(0)
    options = {} if model.startswith("raft") else {"weights_backbone": None}
    network = torchvision.models.get_model(model, weights=None, **options)
    if hasattr(network, "roi_heads"):
        with torch.no_grad():
            network.roi_heads.box_predictor.cls_score.bias[1] = 6.0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model}.pth"
    torch.save(network.state_dict(), path)
    return path


def clip(frames: int, short: int) -> np.ndarray:
    """A rendered video: uint8 RGB [T, H, W, 3]."""
    return render_clip(MOTIONS[0], 0, frames, (short * 4 // 3, short))


def derive_view(
    view: str, folder: Path, frames: int, short: int, detector_size: int, device: str
) -> dict[str, Any]:
    """Derives a view of every frame of a video, and gives the frames per second once warm."""
    kind = get_view(view).deriver()
    weights = random_weights(MODELS[view], folder)
    config = kind.Config(
        weights=str(weights), min_score=0.05, people=PEOPLE, detector_size=detector_size
    )
    deriver: Deriver = kind(config, device)
    shown = clip(frames, short)
    warm = min(frames, 64)
    list(deriver.derive(iter(shown[:warm]), 1, kind.stored_size))
    begin = time.monotonic()
    derived = list(deriver.derive(iter(shown), 1, kind.stored_size))
    seconds = time.monotonic() - begin
    assert len(derived) == frames and all(frame.dtype == np.uint8 for frame in derived)
    begin = time.monotonic()
    blobs = [get_view(view).encode(frame) for frame in derived]
    encoding = time.monotonic() - begin
    return {
        "frames/s": frames / seconds,
        "encoded frames/s, one thread": frames / encoding,
        "bytes/frame": sum(map(len, blobs)) / frames,
        "precision": kind.describe(config, device)["precision"],
    }


def raft_flow(preset: str, folder: Path, pairs: int, short: int, device: str) -> dict[str, Any]:
    """Computes RAFT between the frames of a video, and gives the pairs per second once warm."""
    weights = str(random_weights(RAFT_PRESETS[preset]["model"], folder))
    method = flow_method("raft", with_weights(RAFT_PRESETS[preset], weights), weights)
    assert method.batched is not None
    batched = method.batched(device)
    shown = clip(pairs + 1, short)
    ready = [FramePair(n, shown[n], shown[n + 1]) for n in range(pairs)]
    list(batched.flows(ready[:64]))
    begin = time.monotonic()
    found = list(batched.flows(ready))
    seconds = time.monotonic() - begin
    assert len(found) == pairs
    return {"pairs/s": pairs / seconds, "short side": short}
