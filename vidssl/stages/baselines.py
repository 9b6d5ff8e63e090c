"""`vidssl baselines`: measures hand-made features and untrained encoders like learned ones.

Each baseline leaves a retrieval artifact and a probe artifact, so that a table of results can be
rebuilt from the workspace.

Legend: V videos, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from vidssl.backbones import EncoderSpec
from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError, nearest_name
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation import classification, recall
from vidssl.evaluation.classification import ClassificationResult, ReportLabels
from vidssl.evaluation.features import WindowProtocol, count_windows, embed_videos
from vidssl.evaluation.handmade_features import FRAMES_LOOKED_AT, HAND_MADE, hand_made_features
from vidssl.evaluation.kept_windows_of_pack import kept_windows_of
from vidssl.evaluation.labelled_split import LabelledSplit, check_trainable, find_labels
from vidssl.evaluation.linear_probe import ProbeConfig, probe_settings
from vidssl.evaluation.probed_accuracy import probe_features
from vidssl.evaluation.recall import RetrievalResult, measure_recall, publish_recall
from vidssl.evaluation.untrained_encoder import untrained_encoder, untrained_spec
from vidssl.recipes.recipe import load_recipe
from vidssl.training.options import default_recipe
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.find_inputs import find_pack
from vidssl.workspace.run import Run
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

RANDOM = "random"


@dataclass(frozen=True)
class BaselineOptions:
    """Options of `vidssl baselines`.

    Attributes:
        baselines: names in :data:`HAND_MADE`; None: those whose view the pack has.
        encoders: specs of untrained encoders to measure as well.
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
    """The results of one baseline: retrieval by nearest neighbours, and a linear probe."""

    retrieval: RetrievalResult
    probe: ClassificationResult

    def as_dict(self) -> dict[str, Any]:
        """Returns the retrieval as plain data, for --json, with the probe under "probe"."""
        return self.retrieval.as_dict() | {"probe": self.probe.as_dict()}


def run(
    workspace: Workspace, options: BaselineOptions, progress: Progress = SILENT
) -> list[BaselineResult]:
    """Measures R@k (test videos query the train videos of a split) and a probe for each baseline.

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
        found += [
            _untrained(spec, seed, pack, labelled, options, progress) for seed in options.seeds
        ]
    return [_measure(workspace, one, pack, labelled, options, progress) for one in found]


@dataclass(frozen=True)
class Baseline:
    """One baseline to be measured.

    Attributes:
        recipe: all settings that determine its features.
        seed: of its probe.
        features: computes the features of all videos of the pack [V, F]; called only if needed.
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
        # Learned features have unit length per window; here a video has one window.
        raw_VF = torch.from_numpy(hand_made_features(labelled.reader, name, progress))
        return normalize(raw_VF, dim=1).numpy()

    recipe = {"baseline": name, "frames": FRAMES_LOOKED_AT, "unit": True}
    return Baseline(name, HAND_MADE[name].view, recipe, options.split_seed, features)


def _untrained(
    spec: EncoderSpec,
    seed: int,
    pack: Artifact,
    labelled: LabelledSplit,
    options: BaselineOptions,
    progress: Progress,
) -> Baseline:
    def features() -> np.ndarray:
        reader, protocol, ids = labelled.reader, options.protocol, labelled.ids
        encoder, device = untrained_encoder(spec, seed), choose_device(options.device)
        windows = count_windows(spec, protocol, reader.frame_count(spec.view))
        kept = kept_windows_of(pack, reader, encoder, protocol, device)
        with progress.task(f"embed {spec.view}", windows, "window") as task:
            found = embed_videos(
                encoder, reader, range(len(ids)), ids, protocol, device,
                embedded=task.advance, kept=kept,
            )  # fmt: skip
        return found.video_means()

    recipe = {
        "baseline": RANDOM,
        "spec": vars(spec),
        "seed": seed,
        "protocol": options.protocol.as_dict(spec),
    }
    return Baseline(f"{RANDOM}-{spec.view}-{spec.backbone}", spec.view, recipe, seed, features)


def untrained_specs(backbone: str, device: str | None = None) -> tuple[EncoderSpec, ...]:
    """Returns specs of RGB and flow encoders for the clips of this machine's default recipe."""
    clip = load_recipe(default_recipe(choose_device(device)), "infonce", "rgb").clip
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
    baseline = replace(baseline, features=cache(baseline.features))  # both measures need them
    name = f"baseline-{baseline.name}"
    parents = {"pack": pack, "annotations": labelled.artifact}
    recipe = {
        "stage": "baseline",
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
        **baseline.recipe,
    }
    probing = {"probe_seed": baseline.seed} | probe_settings(ProbeConfig(), len(labelled.train))
    with workspace.open_run("retrieval", name, recipe, parents, options.new) as opened:
        retrieval = _retrieve(opened, baseline, pack, labelled)
    with workspace.open_run("probe", name, recipe | probing, parents, options.new) as opened:
        probe = _probe(opened, baseline, pack, labelled, options.device, progress)
    return BaselineResult(retrieval, probe)


def _retrieve(
    opened: Run, baseline: Baseline, pack: Artifact, labelled: LabelledSplit
) -> RetrievalResult:
    if opened.finished is not None:
        return recall.reused_result(opened.finished, labelled)
    report, found = measure_recall([baseline.features()], labelled, baseline.name, pack)
    artifact = publish_recall(opened, report, found, labelled)
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
        return classification.reused_result(opened.finished, labelled)
    of = ReportLabels(baseline.name, baseline.view, pack.label)
    config, means_VF = ProbeConfig(), baseline.features()
    return probe_features(
        opened, means_VF, labelled, of, config, baseline.seed, device=device, progress=progress
    )
