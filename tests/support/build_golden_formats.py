"""Builds tests/data/formats/v1.tar.xz: one small artifact of every kind, as version 1 writes them.

    python tests/support/build_golden_formats.py FOLDER

It was run once, and its archive stays for ever, so that later versions are tested on files that
an earlier one wrote. A new format version gets an archive of its own beside it; this one is never
built again. What lies in it is made of patterns, so that tests know it without the archive, and
so that it compresses.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.files import file_digest
from vidssl.dataset.annotations import ANNOTATIONS_FILE, write_annotations
from vidssl.engine.resume import save_resume
from vidssl.shards import ShardWriter, VideoRecord
from vidssl.stages import evaluate_retrieval, probe
from vidssl.views import get_view
from vidssl.views.flow import MAP_NAME
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import save_encoder, weights_digest
from vidssl.workspace.workspace import Workspace

ARCHIVE = "v1.tar.xz"
HEIGHT, WIDTH, FRAMES = 36, 48, 6
LABELS = ("left", "right")
SPLIT = "split1"
PER_LABEL = 4
SPEC = EncoderSpec("rgb", "tiny", 3, frames=4, stride=1, size=32, project=8)
RGB = {"codec": "jpeg95", "stored_size": 36}
FLOW = {
    "codec": "png",
    "method": "dis",
    "method_params": {"preset": "medium"},
    "bound": 10.0,
    "map": MAP_NAME,
    "working_size": 36,
    "stored_size": None,
}


def videos() -> list[tuple[str, str]]:
    """Returns (id, label) of the videos, sorted by id. One name is not ASCII."""
    names = [(f"{label}/ä {n}.mp4", label) for label in LABELS for n in range(PER_LABEL)]
    return [(f"{name}#{number:012x}", label) for number, (name, label) in enumerate(names)]


def rgb_frame(video: int, frame: int) -> np.ndarray:
    """A smooth picture that moves to the left or to the right: uint8 [H, W, 3]."""
    way = (-1 if video < PER_LABEL else 1) * 4 * frame + 5 * video
    x = np.arange(WIDTH)[None, :, None] - way
    y = np.arange(HEIGHT)[:, None, None]
    wave = np.sin(x / 5 + np.arange(3)) + np.cos(y / 7)
    return np.rint(128 + 50 * np.broadcast_to(wave, (HEIGHT, WIDTH, 3))).astype(np.uint8)


def flow_frame(video: int, frame: int) -> np.ndarray:
    """Motion to the left or to the right, and a little down: uint8 [H, W, 2]."""
    flow = np.full((HEIGHT, WIDTH, 2), 128, np.uint8)
    flow[..., 0] = 128 + (-1 if video < PER_LABEL else 1) * (40 + frame)
    flow[10:20, 10:20, 1] = 130 + video
    return flow


def weight(name: str, shape: torch.Size) -> torch.Tensor:
    """A tensor of small numbers that repeat, other ones for another name."""
    count = int(np.prod(shape)) if shape else 1
    period = 11 + len(name) % 7
    values = (torch.arange(count) % period - period // 2) / (8 * period)
    if name.endswith("running_var"):
        values = 1 + values.abs()
    if name.endswith("num_batches_tracked"):
        return torch.tensor(100)
    return values.reshape(shape)


def golden_encoder() -> Encoder:
    """The encoder with :func:`weight` in every tensor."""
    encoder = Encoder(SPEC)
    state = {name: weight(name, value.shape) for name, value in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    return encoder.eval()


def table() -> list[dict[str, str]]:
    """The rows of annotations.csv; the last video of each label is for testing."""
    return [
        {
            "id": video,
            "label": label,
            "group": f"{label}, group {number % PER_LABEL // 2}",
            SPLIT: "test" if number % PER_LABEL == PER_LABEL - 1 else "train",
        }
        for number, (video, label) in enumerate(videos())
    ]


class Small(torch.nn.Module):
    """What resume.pt was saved of: a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.register_buffer("queue", torch.arange(4.0))


def small_training() -> tuple[Small, torch.optim.Optimizer]:
    """Returns the module and its optimiser after one step."""
    module = Small()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.5)
    module.weight.sum().backward()
    optimizer.step()
    return module, optimizer


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def build(root: Path) -> None:
    """Writes a workspace with one artifact of every kind, and a resume.pt beside it."""
    workspace = Workspace(root / "workspace")
    flow = _shards(workspace, "flow", {"flow": FLOW}, {})
    pack = _shards(workspace, "pack", {"rgb": RGB, "flow": FLOW}, {"flow": flow})
    annotations = _annotate(workspace, pack)
    _checkpoint(workspace, pack, annotations)
    probe.run(workspace, probe.ProbeOptions(settings=(("epochs", 3),)))
    evaluate_retrieval.run(workspace, evaluate_retrieval.EvaluateRetrievalOptions())
    module, optimizer = small_training()
    save_resume(root, module, optimizer, epoch=2, step_in_epoch=3, log_rows=4)
    for lock in workspace.root.rglob("*.lock"):
        lock.unlink()


def _shards(
    workspace: Workspace, kind: str, views: dict[str, dict], parents: dict[str, Artifact]
) -> Artifact:
    frame = {"rgb": rgb_frame, "flow": flow_frame}
    recipe = {"stage": kind, "views": views}
    with workspace.open_run(kind, "main", recipe, parents) as run:
        # Two shards, so that what spans them is tested.
        with ShardWriter(run.folder, views, shard_bytes=30_000) as writer:
            for number, (video, _) in enumerate(videos()):
                blobs = {
                    view: [
                        get_view(view).encode(frame[view](number, t), params["codec"])
                        for t in range(FRAMES - get_view(view).lag)
                    ]
                    for view, params in views.items()
                }
                path = video.partition("#")[0]
                note = "damaged after frame 6" if number == 2 else ""
                record = VideoRecord(video, path, 25.0, FRAMES, WIDTH, HEIGHT, note)
                writer.add(record, blobs)
            digest = writer.finish()
        (run.folder / "quarantine.csv").write_text(
            "id,video,reason\nbad.mp4#ffffffffffff,bad.mp4,the file is empty\n"
        )
        shown = {view: {"frames": FRAMES * len(videos()), **p} for view, p in views.items()}
        return run.publish(digest, {"videos": len(videos()), "quarantined": 1, "views": shown})


def _annotate(workspace: Workspace, pack: Artifact) -> Artifact:
    recipe = {"stage": "annotate", "labels": "folders"}
    with workspace.open_run("annotations", "main", recipe, {"pack": pack}) as run:
        write_annotations(run.folder, table(), [SPLIT])
        return run.publish(file_digest(run.folder / ANNOTATIONS_FILE), {"videos": len(videos())})


def _checkpoint(workspace: Workspace, pack: Artifact, annotations: Artifact) -> Artifact:
    recipe = {"stage": "pretrain", "stream": "rgb", "split": SPLIT, "seed": 0}
    parents = {"pack": pack, "annotations": annotations}
    with workspace.open_run("checkpoint", "rgb-infonce", recipe, parents) as run:
        encoder = golden_encoder()
        save_encoder(encoder, run.folder)
        (run.folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "loss": None}) + "\n")
        return run.publish(weights_digest({"rgb": encoder}), {"method": "infonce"})


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    build(folder)
    with tarfile.open(folder / ARCHIVE, "w:xz", preset=9) as archive:
        for path in sorted([folder / "workspace", folder / "resume.pt"]):
            archive.add(path, path.name)
    print(f"wrote {folder / ARCHIVE}, {(folder / ARCHIVE).stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
