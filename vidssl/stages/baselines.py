"""What needs no learning: hand-made features and an untrained encoder, measured like the others.

They tell how much of a figure comes from appearance alone or from motion alone. Each is a retrieval
and a probe artifact, so that a table of results can be rebuilt from the workspace.

Legend: V videos, T frames, H and W pixels, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import normalize

from vidssl.backbones import Encoder, EncoderSpec, check_backbone
from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError, nearest_name
from vidssl.base.progress import SILENT, Progress
from vidssl.base.resources import cores
from vidssl.evaluation.classification import ClassificationResult, Classified
from vidssl.evaluation.classification import read_report as read_probe_report
from vidssl.evaluation.features import WindowProtocol, count_windows, extract
from vidssl.evaluation.labelled import (
    LabelledSplit,
    check_trainable,
    find_labels,
)
from vidssl.evaluation.linear_probe import ProbeConfig
from vidssl.evaluation.recall import (
    RetrievalResult,
    measure,
    publish,
    read_report,
)
from vidssl.recipes.recipe import load_recipe
from vidssl.shards import ShardReader
from vidssl.stages.probe import probe_features, settings_of
from vidssl.training.data import find_pack
from vidssl.training.training_run import default_recipe
from vidssl.views import get_view
from vidssl.views.flow import to_pixels
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.results import StageResult
from vidssl.workspace.workspace import Run, Workspace

FRAMES_LOOKED_AT = 16
COLOUR_BINS = 8
MEAN_FRAME_SIDE = 16
DIRECTIONS, SLOW, CELLS = 8, 0.5, 3


# ── hand-made features ───────────────────────────────────────────────────────────────────────


def colour_histogram(frames_THWC: np.ndarray) -> np.ndarray:
    """Returns the joint RGB histogram, 8 bins a channel, as shares: float32 [512]."""
    level = frames_THWC.reshape(-1, 3).astype(np.int64) * COLOUR_BINS // 256
    code = (level[:, 0] * COLOUR_BINS + level[:, 1]) * COLOUR_BINS + level[:, 2]
    return (np.bincount(code, minlength=COLOUR_BINS**3) / len(code)).astype(np.float32)


def mean_frame(frames_THWC: np.ndarray) -> np.ndarray:
    """Returns the mean over time, shrunk to 16×16 pixels: float32 [768]."""
    mean = frames_THWC.astype(np.float32).mean(0)
    side = (MEAN_FRAME_SIDE, MEAN_FRAME_SIDE)
    return cv2.resize(mean, side, interpolation=cv2.INTER_AREA).reshape(-1)


def flow_histogram(flow_THW2: np.ndarray) -> np.ndarray:
    """Returns how much motion goes where: 8 directions and "slow" in 3×3 cells: float32 [81].

    Each pixel counts by its speed, as in histograms of optical flow (Laptev et al. 2008), and all
    bins together make 1.

    Args:
        flow_THW2: in pixels; what moves less than half a pixel is slow, whatever its direction.
    """
    u, v = flow_THW2[..., 0], flow_THW2[..., 1]
    speed = np.hypot(u, v)
    turn = np.floor((np.arctan2(v, u) / (2 * np.pi) + 0.5) * DIRECTIONS).astype(np.int64)
    code = np.where(speed < SLOW, DIRECTIONS, turn % DIRECTIONS)
    cells = [
        np.bincount(c.reshape(-1), s.reshape(-1), minlength=DIRECTIONS + 1)
        for c, s in zip(_cells(code), _cells(speed), strict=True)
    ]
    moved = np.concatenate(cells)
    return (moved / max(moved.sum(), 1e-6)).astype(np.float32)


def _cells(values_THW: np.ndarray) -> list[np.ndarray]:
    """Cuts frames into 3×3 cells."""
    return [
        cell
        for rows in np.array_split(values_THW, CELLS, axis=1)
        for cell in np.array_split(rows, CELLS, axis=2)
    ]


@dataclass(frozen=True)
class HandMade:
    """One hand-made feature: the view it needs, and frames of that view [T, H, W, C] → [F]."""

    view: str
    describe: Callable[[np.ndarray], np.ndarray]
    in_pixels: bool = False


HAND_MADE: dict[str, HandMade] = {
    "colour-histogram": HandMade("rgb", colour_histogram),
    "mean-frame": HandMade("rgb", mean_frame),
    "flow-histogram": HandMade("flow", flow_histogram, in_pixels=True),
}
RANDOM = "random"


# ── the stage ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class BaselineOptions:
    """Which baselines to measure, on which split of which pack.

    Attributes:
        baselines: of :data:`HAND_MADE`; None: those whose view the pack has.
        encoders: untrained encoders to measure as well.
        split, split_seed: as of :meth:`vidssl.dataset.annotations.Annotations.select`.
        seeds: of the untrained encoders' weights; one artifact each.
    """

    baselines: tuple[str, ...] | None = None
    encoders: tuple[EncoderSpec, ...] = ()
    pack: str | None = None
    split: str | None = None
    split_seed: int = 0
    seeds: tuple[int, ...] = (0,)
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    device: str | None = None
    new: bool = False


@dataclass(frozen=True)
class BaselineResult:
    """What one baseline reaches, by nearest neighbours and by a linear probe."""

    retrieval: RetrievalResult
    probe: ClassificationResult

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json: the retrieval's, and the probe's in it."""
        return self.retrieval.as_dict() | {"probe": self.probe.as_dict()}


def run(
    workspace: Workspace, options: BaselineOptions, progress: Progress = SILENT
) -> list[BaselineResult]:
    """Measures R@k (test videos query the train videos of a split) and a probe of each baseline.

    Raises:
        VidsslError: no pack, no labels, no such split, one that cannot be probed, or a view the
            pack lacks.
        UsageError: an unknown baseline.
    """
    for name in options.baselines or ():
        if name not in HAND_MADE:
            raise UsageError(
                f"there is no baseline {name}{nearest_name(name, HAND_MADE)}; "
                f"there are {', '.join(HAND_MADE)}"
            )
    choose_device(options.device)
    views = sorted({HAND_MADE[name].view for name in options.baselines or ()} | {"rgb"})
    pack = find_pack(workspace, options.pack, views)
    labelled = find_labels(workspace, pack, [], options.split, options.split_seed)
    check_trainable(labelled)
    names = options.baselines
    if names is None:
        names = tuple(n for n, made in HAND_MADE.items() if made.view in labelled.reader.views)
    found = [_hand_made(name, labelled, options, progress) for name in names]
    for spec in options.encoders:
        found += [_untrained(spec, seed, labelled, options, progress) for seed in options.seeds]
    return [_measure(workspace, one, pack, labelled, options, progress) for one in found]


@dataclass(frozen=True)
class Baseline:
    """One baseline on its way to be measured.

    Attributes:
        recipe: every number that shapes its features.
        seed: of its probe.
        features: computes them for all of the pack's videos [V, F]; called only if needed.
    """

    name: str
    view: str
    recipe: dict[str, Any]
    seed: int
    features: Callable[[], np.ndarray]


def _hand_made(
    name: str, labelled: LabelledSplit, options: BaselineOptions, progress: Progress
) -> Baseline:
    def features() -> np.ndarray:
        # As learned features are: unit length per window, of which a video has one here.
        raw_VF = torch.from_numpy(hand_made_features(labelled.reader, name, progress))
        return normalize(raw_VF, dim=1).numpy()

    recipe = {"baseline": name, "frames": FRAMES_LOOKED_AT, "unit": True}
    return Baseline(name, HAND_MADE[name].view, recipe, options.split_seed, features)


def hand_made_features(reader: ShardReader, name: str, progress: Progress = SILENT) -> np.ndarray:
    """Returns a hand-made feature of every video of a pack, from 16 frames each: [V, F]."""
    made = HAND_MADE[name]
    lengths = reader.frame_count(made.view)
    bound = float(reader.views[made.view].get("bound", 1.0))

    def one(video: int) -> np.ndarray:
        count = min(FRAMES_LOOKED_AT, int(lengths[video]))
        shown = np.linspace(0, int(lengths[video]) - 1, count).round().astype(int)
        frames = reader.frames(made.view, video, shown)
        return made.describe(to_pixels(frames, bound) if made.in_pixels else frames)

    rows = []
    with (
        ThreadPoolExecutor(min(16, cores())) as pool,
        progress.task(name, len(reader), "video") as task,
    ):
        for row in pool.map(one, range(len(reader))):
            rows.append(row)
            task.advance()
    return np.stack(rows)


def _untrained(
    spec: EncoderSpec,
    seed: int,
    labelled: LabelledSplit,
    options: BaselineOptions,
    progress: Progress,
) -> Baseline:
    def features() -> np.ndarray:
        reader, protocol = labelled.reader, options.protocol
        windows = count_windows(spec, protocol, reader.frame_count(spec.view))
        with progress.task(f"embed {spec.view}", windows, "window") as task:
            found = extract(
                untrained_encoder(spec, seed),
                reader,
                range(len(labelled.ids)),
                labelled.ids,
                protocol,
                choose_device(options.device),
                embedded=task.advance,
            )
        return found.video_means()

    recipe = {
        "baseline": RANDOM,
        "spec": vars(spec),
        "seed": seed,
        "protocol": options.protocol.as_dict(spec),
    }
    return Baseline(f"{RANDOM}-{spec.view}-{spec.backbone}", spec.view, recipe, seed, features)


def untrained_encoder(spec: EncoderSpec, seed: int) -> Encoder:
    """Returns an encoder with the weights that training with this seed would start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(spec).eval()


def untrained_spec(view: str, backbone: str, frames: int, stride: int, size: int) -> EncoderSpec:
    """Returns the spec of an untrained encoder without a projection head."""
    check_backbone(backbone)
    channels = get_view(view).channels
    return EncoderSpec(view, backbone, channels, frames, stride, size, project=None)


def untrained_specs(backbone: str, device: str | None = None) -> tuple[EncoderSpec, ...]:
    """Returns untrained encoders of RGB and flow that eat the clips of the machine's recipe."""
    clip = load_recipe(default_recipe(device), "infonce", "rgb").clip
    return tuple(
        untrained_spec(view, backbone, clip.frames, clip.stride, clip.size)
        for view in ("rgb", "flow")
    )


def _measure(
    workspace: Workspace,
    baseline: Baseline,
    pack: Artifact,
    labelled: LabelledSplit,
    options: BaselineOptions,
    progress: Progress,
) -> BaselineResult:
    baseline = replace(baseline, features=cache(baseline.features))  # both measures want them
    name = f"baseline-{baseline.name}"
    parents = {"pack": pack, "annotations": labelled.artifact}
    recipe = {
        "stage": "baseline",
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        **baseline.recipe,
    }
    probing = {"probe_seed": baseline.seed} | settings_of(ProbeConfig(), labelled)
    with workspace.open_run("retrieval", name, recipe, parents, options.new) as opened:
        retrieval = _retrieve(opened, baseline, pack, labelled)
    with workspace.open_run("probe", name, recipe | probing, parents, options.new) as opened:
        probe = _probe(opened, baseline, pack, labelled, options.device, progress)
    return BaselineResult(retrieval, probe)


def _retrieve(
    opened: Run, baseline: Baseline, pack: Artifact, labelled: LabelledSplit
) -> RetrievalResult:
    if opened.finished is not None:
        stage = StageResult(opened.finished, reused=True, notes=labelled.notes)
        return RetrievalResult(stage, read_report(opened.finished))
    report, found = measure([baseline.features()], labelled, baseline.name, pack)
    artifact = publish(opened, report, found, labelled)
    return RetrievalResult(StageResult(artifact, notes=labelled.notes), report)


def _probe(
    opened: Run,
    baseline: Baseline,
    pack: Artifact,
    labelled: LabelledSplit,
    device: str | None,
    progress: Progress,
) -> ClassificationResult:
    if opened.finished is not None:
        stage = StageResult(opened.finished, reused=True, notes=labelled.notes)
        return ClassificationResult(stage, read_probe_report(opened.finished))
    of = Classified(baseline.name, baseline.view, pack.label)
    config, means_VF = ProbeConfig(), baseline.features()
    return probe_features(
        opened, means_VF, labelled, of, config, baseline.seed, device=device, progress=progress
    )
