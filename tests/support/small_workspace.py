"""A workspace made in a second: packed noise, labels, and untrained encoders.

Nothing is decoded and nothing is trained, so that the evaluation stages are tested by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.files import file_digest
from vidssl.dataset.annotations import ANNOTATIONS_FILE, write_annotations
from vidssl.shards import SHARD_BYTES, ShardReader, ShardWriter, VideoRecord
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import save_encoder, weights_digest
from vidssl.workspace.workspace import Workspace

# Networks this small are faster in one thread, above all where tests run side by side.
torch.set_num_threads(1)

PARAMS = {
    "rgb": {"codec": "png", "stored_size": 36},
    "flow": {"codec": "png", "method": "dis", "bound": 20.0, "stored_size": 36},
}


def frames_of(view: str, label: int, length: int, seed: int) -> np.ndarray:
    """Noise around a shade of the class: uint8 [T, 36, 48, C]."""
    draw = np.random.default_rng([seed, label])
    channels = get_view(view).channels
    shade = np.random.default_rng(label).integers(60, 196, channels)
    noise = draw.normal(0, 25, (length, 36, 48, channels))
    return np.clip(shade + noise, 0, 255).astype(np.uint8)


def make_pack(
    workspace: Workspace,
    labels: Sequence[int],
    views: Sequence[str] = ("rgb",),
    length: int = 20,
    name: str = "main",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    paths: Sequence[str] = (),
) -> Artifact:
    """Publishes a pack of one video per label.

    Args:
        paths: of the videos; none: class and number.
    """
    params = {view: PARAMS[view] for view in views}
    recipe = {"stage": "pack", "views": params, "videos": f"{len(labels)} of seed {seed}"}
    with workspace.open_run("pack", name, recipe, {}) as run:
        with ShardWriter(run.folder, params, shard_bytes) as writer:
            for number, label in enumerate(labels):
                path = paths[number] if paths else f"class{label}/clip{number:03d}.mp4"
                blobs = {}
                for view in views:
                    count = length - get_view(view).lag
                    frames = frames_of(view, label, count, 1000 * seed + number)
                    blobs[view] = [get_view(view).encode(f, "png") for f in frames]
                video_id = f"{path}#{number:012x}"
                writer.add(VideoRecord(video_id, path, 25.0, length, 48, 36, ""), blobs)
            digest = writer.finish()
        shown = {view: {"frames": length * len(labels), **params[view]} for view in views}
        return run.publish(digest, {"videos": len(labels), "views": shown})


def annotate(
    workspace: Workspace,
    pack: Artifact,
    labels: Sequence[str] | None = None,
    splits: dict[str, Sequence[str]] | None = None,
    name: str = "main",
) -> Artifact:
    """Publishes annotations; labels default to the folders the videos lie in."""
    splits = splits or {}
    reader = ShardReader(pack.path)
    ids = [reader.video_id(v) for v in range(len(reader))]
    labels = labels if labels is not None else [i.partition("/")[0] for i in ids]
    rows = [
        {"id": i, "label": labels[v], "group": i} | {s: words[v] for s, words in splits.items()}
        for v, i in enumerate(ids)
    ]
    recipe = {"stage": "annotate", "rows": rows}
    with workspace.open_run("annotations", name, recipe, {"pack": pack}) as run:
        if run.finished is not None:
            return run.finished
        write_annotations(run.folder, rows, list(splits))
        return run.publish(file_digest(run.folder / ANNOTATIONS_FILE), {"videos": len(ids)})


def make_checkpoint(
    workspace: Workspace,
    pack: Artifact,
    annotations: Artifact | None = None,
    stream: str = "rgb",
    split: str | None = "80/20",
    seed: int = 0,
    name: str | None = None,
    spec: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Artifact:
    """Publishes an untrained tiny encoder as if it had been pretrained.

    Args:
        spec, recipe: what differs of its spec, and of the recipe it says it comes of.
        files: further files of the artifact, as text.
    """
    torch.manual_seed(seed)
    channels = get_view(stream).channels
    whole = replace(EncoderSpec(stream, "tiny", channels, 8, 1, 32, 16), **(spec or {}))
    encoder = Encoder(whole).eval()
    recipe = {"stage": "pretrain", "stream": stream, "split": split, "seed": seed} | (recipe or {})
    parents = {"pack": pack} | ({"annotations": annotations} if annotations else {})
    name = name or f"{stream}-infonce"
    with workspace.open_run("checkpoint", name, recipe, parents) as run:
        save_encoder(encoder, run.folder)
        for file, text in (files or {}).items():
            (run.folder / file).write_text(text)
        summary = {"method": "infonce", "backbone": "tiny", "epochs": 1}
        return run.publish(weights_digest({stream: encoder}), summary)


def small_workspace(folder: Path, clips: int = 10, classes: int = 3) -> Workspace:
    """Returns a workspace with a pack, folder labels, one split and an rgb checkpoint."""
    workspace = Workspace(folder)
    labels = [number % classes for number in range(clips * classes)]
    pack = make_pack(workspace, labels)
    words = ["test" if i % 5 == 0 else "train" for i in range(len(labels))]
    table = annotate(workspace, pack, splits={"split1": words})
    make_checkpoint(workspace, pack, table, split="split1")
    return workspace
