"""`vidssl demo`: the whole pipeline on video it makes itself, and what was learned as one table.

Nothing here is special: every step is a public stage, run as the user would run it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidssl.artifacts import Artifact, Workspace
from vidssl.machine import cores
from vidssl.progress import SILENT, Progress
from vidssl.recipes import load_recipe
from vidssl.stages import baselines, cotrain, extract_flow, pack, pretrain, probe, retrieve
from vidssl.stages.classification import ClassificationReport
from vidssl.stages.device import choose_device
from vidssl.stages.recall import RetrievalReport
from vidssl.synthetic import MOTIONS, write_clips

RECIPE = "demo"
APPEARANCE = ("colour-histogram", "mean-frame")
CONTROL = "InfoNCE RGB, as long"
CLIPS = 480


@dataclass(frozen=True)
class DemoOptions:
    """Options of `vidssl demo`.

    Attributes:
        clips: how many to make; a third of them is for testing.
        seed: of the clips and of all training.
        settings: (field, value) overrides of the demo's recipe, for all trainings.
    """

    clips: int = CLIPS
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class DemoRow:
    """What one kind of feature reaches."""

    features: str
    recall: RetrievalReport
    probe: ClassificationReport | None = None

    @property
    def within_chance(self) -> bool:
        """Whether R@1 lies within two standard errors of chance."""
        first = self.recall.at(1)
        error = (first.chance * (1 - first.chance) / first.queries) ** 0.5
        return abs(first.recall - first.chance) <= 2 * error


@dataclass(frozen=True)
class DemoResult:
    """What the demo learned.

    Attributes:
        videos: the folder of made-up clips, with splits.csv in it.
        seconds: time per step; steps that were finished before take none.
    """

    videos: Path
    classes: list[str]
    rows: list[DemoRow]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def row(self, features: str) -> DemoRow:
        """Gives the row of one kind of feature."""
        return next(row for row in self.rows if row.features == features)

    def findings(self) -> list[str]:
        """Gives, in sentences, what the figures show and what they do not."""
        blind = all(self.row(_named(name)).within_chance for name in APPEARANCE)
        before, after = (self.row(n).recall.at(1) for n in (CONTROL, "CoCLR RGB"))
        gain = after.recall - before.recall
        error = (before.error**2 + after.error**2) ** 0.5
        verdict = (
            "CoCLR lifts RGB above InfoNCE"
            if gain > 2 * error
            else "which is within two standard errors: these clips do not show a difference"
        )
        return [
            "Appearance alone is at chance: what is found, motion tells."
            if blind
            else "Appearance alone is off chance here: part of what is found may be appearance.",
            f"CoCLR minus InfoNCE of as many epochs, on RGB: {100 * gain:+.1f} ± "
            f"{100 * error:.1f} points; {verdict}.",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Gives the result as plain data, for --json."""
        return {
            "videos": str(self.videos),
            "classes": self.classes,
            "rows": [asdict(row) for row in self.rows],
            "seconds": dict(self.seconds),
        }


def run(workspace: Workspace, options: DemoOptions, progress: Progress = SILENT) -> DemoResult:
    """Makes clips and runs every stage on them; what is finished already is not done again."""
    check(options)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str):  # type: ignore[no-untyped-def]
        begin = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - begin, 1)

    with timed("make clips"):
        videos = make_clips(workspace, options, progress)
    with timed("extract-flow"):
        flow_config = extract_flow.ExtractFlow(videos, method="dis", workers=options.workers)
        extract_flow.run(workspace, flow_config, progress)
    with timed("pack"):
        pack_config = pack.Pack(videos, labels=str(videos / "splits.csv"), workers=options.workers)
        pack.run(workspace, pack_config, progress)
    checkpoints: dict[str, Artifact | None] = {}
    for name, train in trainings(workspace, options, progress).items():
        with timed(name):
            checkpoints[name] = train()
    with timed("evaluate"):
        rows = evaluate_unlearned(workspace, options, progress)
        rows += [
            evaluate(workspace, name, checkpoint, options, progress)
            for name, checkpoint in checkpoints.items()
            if checkpoint is not None
        ]
    return DemoResult(videos, list(MOTIONS), rows, seconds)


def check(options: DemoOptions) -> None:
    """Checks what options say by themselves, before any clip is made.

    Raises:
        UsageError: a setting that one of the demo's methods does not know, or no such device.
    """
    choose_device(options.device)
    for method in ("infonce", "coclr"):
        load_recipe(RECIPE, method, "rgb", options.settings)


def _named(baseline: str) -> str:
    return baseline.replace("-", " ")


def make_clips(workspace: Workspace, options: DemoOptions, progress: Progress) -> Path:
    """Writes the made-up clips into the workspace; those that are there stay."""
    folder = workspace.root / "demo-videos"
    workers = options.workers or cores()
    return write_clips(folder, options.clips, options.seed, workers=workers, progress=progress)


def trainings(
    workspace: Workspace, options: DemoOptions, progress: Progress
) -> dict[str, Callable[[], Artifact | None]]:
    """Gives the demo's trainings in their order; each gives its checkpoint.

    The control, InfoNCE for as long as InfoNCE and CoCLR together, comes first: then the newest
    checkpoints are those the user would go on with.
    """
    common: dict[str, Any] = {
        "recipe": RECIPE,
        "seed": options.seed,
        "device": options.device,
        "settings": options.settings,
    }

    def alone(stream: str, **own: Any) -> Callable[[], Artifact | None]:
        return lambda: (
            pretrain.run(
                workspace, pretrain.PretrainOptions(stream=stream, **(common | own)), progress
            ).artifact
        )

    epochs = {method: _epochs(method, options) for method in ("infonce", "coclr")}
    longer = (*options.settings, ("epochs", sum(epochs.values())))

    def together() -> Artifact | None:
        # Named, since after a finished demo the newest are the co-trained ones.
        pair = {"student": "rgb-infonce", "partner": "flow-infonce"}
        return cotrain.run(
            workspace, cotrain.CotrainOptions(stream="rgb", **pair, **common), progress
        ).artifact

    return {
        CONTROL: alone("rgb", name="rgb-infonce-long", settings=longer),
        "InfoNCE RGB": alone("rgb"),
        "InfoNCE flow": alone("flow"),
        "CoCLR RGB": together,
    }


def _epochs(method: str, options: DemoOptions) -> int:
    return load_recipe(RECIPE, method, "rgb", options.settings).train.epochs


def evaluate_unlearned(
    workspace: Workspace, options: DemoOptions, progress: Progress
) -> list[DemoRow]:
    """Measures appearance, and the networks before any training."""
    recipe = load_recipe(RECIPE, "infonce", "rgb", options.settings)
    clip = recipe.clip
    untrained = tuple(
        baselines.untrained_spec(view, recipe.network.backbone, clip.frames, clip.stride, clip.size)
        for view in ("rgb", "flow")
    )
    measured = baselines.run(
        workspace,
        baselines.BaselineOptions(APPEARANCE, untrained, device=options.device),
        progress,
    )
    names = (*map(_named, APPEARANCE), "untrained RGB", "untrained flow")
    return [
        DemoRow(name, result.retrieval.report, result.probe.report)
        for name, result in zip(names, measured, strict=True)
        if result.retrieval.report is not None
    ]


def evaluate(
    workspace: Workspace, name: str, checkpoint: Artifact, options: DemoOptions, progress: Progress
) -> DemoRow:
    """Measures one checkpoint: nearest neighbours and linear probe."""
    recall = retrieve.run(
        workspace,
        retrieve.RetrieveOptions((checkpoint.label,), device=options.device),
        progress,
    )
    probed = probe.run(
        workspace, probe.ProbeOptions((checkpoint.label,), device=options.device), progress
    )
    assert recall.report is not None
    return DemoRow(name, recall.report, probed.report)
