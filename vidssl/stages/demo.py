"""`vidssl demo`: runs the whole pipeline on synthetic video, and shows its results in one table.

Every step is a public stage, run as a user would run it. On a CPU, trainings and evaluations that
do not need each other run at the same time, with one thread each. More threads would not make so
small a network faster, and its figures would depend on their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vidssl.base.cores_and_memory import cores, one_thread
from vidssl.base.device import choose_device
from vidssl.base.parallel_jobs import Job, run_jobs
from vidssl.base.progress import SILENT, Named, Progress
from vidssl.base.text import counted
from vidssl.dataset.synthetic import write_clips
from vidssl.dataset.synthetic_scene import MOTIONS
from vidssl.evaluation.classification import ClassificationReport
from vidssl.evaluation.recall import RetrievalReport
from vidssl.evaluation.untrained_encoder import untrained_spec
from vidssl.recipes.recipe import load_recipe
from vidssl.stages import (
    baselines,
    cotrain,
    evaluate_retrieval,
    extract_flow,
    pack,
    pretrain,
    probe,
    retrieve,
)
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

RECIPE = "demo"
APPEARANCE = ("colour-histogram", "mean-frame")
UNTRAINED = "untrained RGB"
EVALUATE = "evaluate"
# Trainings, by the names of their checkpoints.
RGB, FLOW, CONTROL, COCLR = "rgb-infonce", "flow-infonce", "rgb-infonce-long", "rgb-coclr"
CLIPS = 900


@dataclass(frozen=True)
class DemoOptions:
    """Options of `vidssl demo`.

    Attributes:
        clips: number of synthetic clips; a third of them is for training, the rest for testing.
        seed: of the clips and of all trainings.
        settings: (field, value) overrides of the demo's recipe, for all trainings.
    """

    clips: int = CLIPS
    seed: int = 0
    workers: int | None = None
    device: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class DemoRow:
    """The results of one kind of feature: one row of the table.

    Attributes:
        features: their name in the table.
        training: the name of their checkpoint; None: nothing was trained.
    """

    features: str
    recall: RetrievalReport
    probe: ClassificationReport | None = None
    training: str | None = None

    @property
    def within_chance(self) -> bool:
        """Whether R@1 lies within two standard errors of chance."""
        first = self.recall.at(1)
        error = (first.chance * (1 - first.chance) / first.queries) ** 0.5
        return abs(first.recall - first.chance) <= 2 * error


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo.

    Attributes:
        videos: the folder of synthetic clips, with splits.csv in it.
        seconds: {step: seconds}; finished steps take none. Trainings and evaluations may run at
            the same time.
        total: seconds of this call from start to end.
        gone_on: whether an earlier call had started the demo; `total` is without its time.
        sheet: picture of a test clip and its nearest neighbours; None: nothing was trained.
    """

    videos: Path
    classes: list[str]
    rows: list[DemoRow]
    seconds: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0
    gone_on: bool = False
    sheet: Path | None = None

    @property
    def query(self) -> Path:
        """The clip whose neighbours are drawn: the first test clip that pulses."""
        return self.videos / "pulse" / "pulse_0001.mp4"

    def row(self, features: str) -> DemoRow:
        """Returns the row of one kind of feature."""
        return next(row for row in self.rows if row.features == features)

    def trained(self, training: str) -> DemoRow:
        """Returns the row of one training's checkpoint."""
        return next(row for row in self.rows if row.training == training)

    def findings(self) -> list[str]:
        """Returns sentences that say what the figures show and what they do not show."""
        blind = all(self.row(_named(name)).within_chance for name in APPEARANCE)
        untrained, control, coclr = self.row(UNTRAINED), self.trained(CONTROL), self.trained(COCLR)
        return [
            "Appearance alone is at chance: what is found, motion tells."
            if blind
            else "Appearance alone is off chance here: part of what is found may be appearance.",
            _difference("InfoNCE minus the untrained network, on RGB", control, untrained),
            _difference("CoCLR minus InfoNCE of as many epochs, on RGB", coclr, control),
            self.conclusion(),
        ]

    def conclusion(self) -> str:
        """Returns in one sentence what the RGB encoder learned."""
        before, after = (row.recall.at(1) for row in (self.row(UNTRAINED), self.trained(COCLR)))
        shares = (
            f"of 100 test clips {100 * after.recall:.0f} find a clip of the same motion first, "
            f"{100 * before.recall:.0f} before training, {100 * after.chance:.0f} by chance"
        )
        if after.recall - before.recall > 2 * math.hypot(after.error, before.error):
            return f"The RGB encoder learned to tell motions apart without a label: {shares}."
        return f"The RGB encoder learned little from so few clips: {shares}."

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        return {
            "videos": str(self.videos),
            "classes": self.classes,
            "rows": [asdict(row) for row in self.rows],
            "seconds": dict(self.seconds),
            "total_seconds": self.total,
            "gone_on": self.gone_on,
            "sheet": None if self.sheet is None else str(self.sheet),
        }


def _difference(what: str, row: DemoRow, other: DemoRow) -> str:
    """Returns a sentence with the difference of two rows, and which of it is beyond noise."""
    assert row.probe is not None and other.probe is not None
    first, second = row.recall.at(1), other.recall.at(1)
    gains = {
        "R@1": (first.recall - second.recall, math.hypot(first.error, second.error)),
        "probe": (
            row.probe.top1 - other.probe.top1,
            math.hypot(row.probe.error, other.probe.error),
        ),
    }
    figures = ", ".join(
        f"{name} {100 * gain:+.1f} ± {100 * error:.1f}" for name, (gain, error) in gains.items()
    )
    beyond = [name for name, (gain, error) in gains.items() if gain > 2 * error]
    verdict = {
        0: "these clips show no gain beyond two standard errors",
        1: f"a gain beyond two standard errors on {beyond[0] if beyond else ''} alone",
        2: "a gain beyond two standard errors on both",
    }[len(beyond)]
    return f"{what}: {figures} points; {verdict}."


def run(workspace: Workspace, options: DemoOptions, progress: Progress = SILENT) -> DemoResult:
    """Makes clips and runs every stage on them; finished steps are not repeated."""
    check_options(options)
    gone_on = clips_folder(workspace).exists()
    begin = time.monotonic()
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - begin, 1)

    with timed("make clips"):
        videos = make_clips(workspace, options, progress)
    with timed("extract-flow"):
        flow_config = extract_flow.ExtractFlow(
            videos, method="dis", preset="fast", workers=options.workers
        )
        extract_flow.run(workspace, flow_config, progress)
    with timed("pack"):
        pack_config = pack.Pack(videos, labels=str(videos / "splits.csv"), workers=options.workers)
        pack.run(workspace, pack_config, progress)
    done = run_jobs(jobs(workspace, options), processes(options), progress)
    seconds |= {name: round(job.seconds, 1) for name, job in done.items()}
    rows = [row for name, job in done.items() if name.startswith(EVALUATE) for row in job.result]
    with timed("draw neighbours"):
        trained = [done[name].result.label for name in (COCLR, FLOW) if name in done]
        result = DemoResult(videos, list(MOTIONS), rows, seconds, gone_on=gone_on)
        if trained:
            sheet = draw_neighbours(workspace, result.query, trained, options, progress)
            result = replace(result, sheet=sheet)
    return replace(result, total=round(time.monotonic() - begin, 1))


def processes(options: DemoOptions) -> int:
    """Returns how many trainings and evaluations run at a time; on CUDA it is one."""
    return (options.workers or cores()) if choose_device(options.device) == "cpu" else 1


def check_options(options: DemoOptions) -> None:
    """Checks the options by themselves, before any clip is made.

    Raises:
        UsageError: a setting that one of the demo's methods does not have, or no such device.
    """
    choose_device(options.device)
    for method in ("infonce", "coclr"):
        load_recipe(RECIPE, method, "rgb", options.settings)


def _named(baseline: str) -> str:
    return baseline.replace("-", " ")


def clips_folder(workspace: Workspace) -> Path:
    """Returns the folder of the synthetic clips: the first thing that a demo makes."""
    return workspace.root / "demo-videos"


def make_clips(workspace: Workspace, options: DemoOptions, progress: Progress) -> Path:
    """Writes the synthetic clips into the workspace; existing ones stay."""
    workers = options.workers or cores()
    folder = clips_folder(workspace)
    return write_clips(folder, options.clips, options.seed, workers=workers, progress=progress)


def draw_neighbours(
    workspace: Workspace,
    query: Path,
    checkpoints: Sequence[str],
    options: DemoOptions,
    progress: Progress,
) -> Path:
    """Draws a clip and its nearest neighbours by RGB and flow; returns the picture's path."""
    sheet = workspace.root / "neighbours.png"
    wanted = retrieve.RetrieveOptions(
        (query,), tuple(checkpoints), sheet=sheet, device=options.device
    )
    retrieve.run(workspace, wanted, progress)
    return sheet


# ── trainings and evaluations ────────────────────────────────────────────────────────────────


def jobs(workspace: Workspace, options: DemoOptions) -> list[Job]:
    """Returns the demo's trainings, and then their evaluations in the order of the table.

    The two encoders that CoCLR starts from come first, then the control (InfoNCE of as many epochs
    as both together), then CoCLR: so the newest checkpoint is the one to continue with.
    RGB trainings come one after the other: each takes what the first has computed of the clips.
    """
    common: dict[str, Any] = {"recipe": RECIPE, "seed": options.seed, "device": options.device}
    as_long = _epochs("infonce", options) + _epochs("coclr", options)
    control = pretrain.PretrainOptions(
        name=CONTROL, settings=(*options.settings, ("epochs", as_long)), **common
    )
    rgb, flow = (
        pretrain.PretrainOptions(name=name, stream=s, settings=options.settings, **common)
        for name, s in ((RGB, "rgb"), (FLOW, "flow"))
    )
    together = cotrain.CotrainOptions(name=COCLR, settings=options.settings, **common)
    trainings = [
        Job(RGB, partial(_pretrain, workspace, rgb)),
        Job(FLOW, partial(_pretrain, workspace, flow)),
        Job(CONTROL, partial(_pretrain, workspace, control), (RGB,)),
        Job(COCLR, partial(_cotrain, workspace, together), (RGB, FLOW, CONTROL)),
    ]
    evaluations = [
        Job(f"{EVALUATE} {name}", partial(_evaluate, workspace, options, title), (name,))
        for name, title in titles(options).items()
    ]
    unlearned = Job(f"{EVALUATE} unlearned", partial(_evaluate_baselines, workspace, options))
    return [*trainings, unlearned, *evaluations]


def titles(options: DemoOptions) -> dict[str, str]:
    """Returns {training: name of its features in the table}, in the order of the table."""
    infonce, coclr = _epochs("infonce", options), _epochs("coclr", options)
    return {
        FLOW: "InfoNCE flow",
        RGB: f"InfoNCE RGB, {counted(infonce, 'epoch')}",
        CONTROL: f"InfoNCE RGB, {counted(infonce + coclr, 'epoch')}",
        COCLR: f"CoCLR RGB, {counted(coclr, 'epoch')} after InfoNCE's {infonce}",
    }


def _pretrain(
    workspace: Workspace, options: pretrain.PretrainOptions, progress: Progress, *before: Artifact
) -> Artifact:
    with one_thread():
        return _checkpoint(pretrain.run(workspace, options, progress), progress)


def _cotrain(
    workspace: Workspace,
    options: cotrain.CotrainOptions,
    progress: Progress,
    student: Artifact,
    partner: Artifact,
    control: Artifact,
) -> Artifact:
    # Named here, since after a finished demo the newest checkpoints are other ones.
    pair = replace(options, student=student.label, partner=partner.label)
    with one_thread():
        return _checkpoint(cotrain.run(workspace, pair, progress), progress)


def _checkpoint(result: StageResult, progress: Progress) -> Artifact:
    assert result.artifact is not None
    if result.reused:
        progress.say(f"{result.artifact.name}: finished before, {result.artifact.label}")
    return result.artifact


def _epochs(method: str, options: DemoOptions) -> int:
    return load_recipe(RECIPE, method, "rgb", options.settings).train.epochs


def _evaluate_baselines(
    workspace: Workspace, options: DemoOptions, progress: Progress
) -> list[DemoRow]:
    """Measures the appearance baselines and the untrained networks."""
    recipe = load_recipe(RECIPE, "infonce", "rgb", options.settings)
    clip = recipe.clip
    untrained = tuple(
        untrained_spec(view, recipe.network.backbone, clip.frames, clip.stride, clip.size)
        for view in ("rgb", "flow")
    )
    wanted = baselines.BaselineOptions(APPEARANCE, untrained, device=options.device)
    with one_thread():
        measured = baselines.run(workspace, wanted, Named(progress, "unlearned"))
    names = (*map(_named, APPEARANCE), UNTRAINED, "untrained flow")
    return [
        DemoRow(name, result.retrieval.report, result.probe.report)
        for name, result in zip(names, measured, strict=True)
        if result.retrieval.report is not None
    ]


def _evaluate(
    workspace: Workspace,
    options: DemoOptions,
    title: str,
    progress: Progress,
    checkpoint: Artifact,
) -> list[DemoRow]:
    """Measures one checkpoint by nearest neighbours and by a linear probe."""
    of, device, shown = (checkpoint.label,), options.device, Named(progress, checkpoint.name)
    with one_thread():
        recall = evaluate_retrieval.run(
            workspace, evaluate_retrieval.EvaluateRetrievalOptions(of, device=device), shown
        )
        probed = probe.run(workspace, probe.ProbeOptions(of, device=device), shown)
    assert recall.report is not None
    return [DemoRow(title, recall.report, probed.report, checkpoint.name)]
