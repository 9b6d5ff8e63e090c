"""`vidssl retrieve --evaluate`: how often a test video's nearest train videos share its class."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from vidssl.artifacts import Artifact, Workspace
from vidssl.errors import UsageError
from vidssl.features import Protocol
from vidssl.progress import SILENT, Progress
from vidssl.stages.embed import features_of, recipe_of
from vidssl.stages.evaluation import Subject, find_labels, find_subject
from vidssl.stages.recall import RetrievalResult, measure, publish, read_report
from vidssl.stages.result import StageResult
from vidssl.stages.training import choose_device


@dataclass(frozen=True)
class RetrieveOptions:
    """What to evaluate.

    Attributes:
        checkpoints: one or two; none: the newest of each of `streams`.
        streams: one or two, whose similarities are added; none: the checkpoints' own, or rgb.
        pack: None: the one the first checkpoint was trained on.
        split: None: the one the first checkpoint was trained with.
        name: of the artifact; None: the checkpoints'.
    """

    checkpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    pack: str | None = None
    split: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    name: str | None = None
    new: bool = False
    device: str | None = None
    dry_run: bool = False


def run(
    workspace: Workspace, options: RetrieveOptions, progress: Progress = SILENT
) -> RetrievalResult:
    """Measures R@1, 5, 10, 20, 50: test videos query the train videos of a split.

    Raises:
        VidsslError: no checkpoint, no labels, or no such split.
    """
    subjects = find_subjects(workspace, options)
    checkpoints = [subject.checkpoint for subject in subjects]
    pack = subjects[0].pack
    labelled = find_labels(workspace, pack, checkpoints, options.split)
    name = options.name or "_".join(dict.fromkeys(c.name for c in checkpoints))
    recipe = {
        "stage": "retrieve",
        "streams": [subject.stream for subject in subjects],
        "features": [recipe_of(subject, options.protocol) for subject in subjects],
        "split": labelled.selection.name,
        "split_seed": labelled.split_seed,
    }
    if options.dry_run:
        plan: dict[str, Any] = {"makes": f"retrieval/{name}", "recipe": recipe}
        plan["inputs"] = [s.checkpoint.label for s in subjects] + [pack.label]
        return RetrievalResult(StageResult(None, notes=labelled.notes, plan=plan), None)
    shown = " + ".join(f"{s.checkpoint.label}" for s in subjects)
    progress.say(f"retrieve: {shown} on {pack.label}, {labelled.selection.note}")
    parents: dict[str, Artifact] = {"annotations": labelled.artifact}
    streams = []
    for number, subject in enumerate(subjects, 1):
        artifact, features = features_of(
            workspace, subject, options.protocol, options.device, progress
        )
        mark = str(number) if number > 1 else ""
        parents |= {f"checkpoint{mark}": subject.checkpoint, f"features{mark}": artifact}
        streams.append(features.video_means())
    with workspace.open_run("retrieval", name, recipe, parents, options.new) as opened:
        if opened.finished is not None:
            stage = StageResult(opened.finished, reused=True, notes=labelled.notes)
            return RetrievalResult(stage, read_report(opened.finished))
        device = choose_device(options.device)
        report, found = measure(streams, labelled, shown, pack, device)
        artifact = publish(opened, report, found, labelled)
    return RetrievalResult(StageResult(artifact, notes=labelled.notes), report)


def find_subjects(workspace: Workspace, options: RetrieveOptions) -> list[Subject]:
    """Finds the one or two encoders, both to be tried on the first one's pack.

    Raises:
        UsageError: more than two, or as many streams as do not fit several checkpoints.
    """
    checkpoints, streams = options.checkpoints, options.streams
    if len(checkpoints) == 1:  # it may hold encoders of several streams
        checkpoints *= max(1, len(streams))
    if max(len(checkpoints), len(streams)) > 2:
        raise UsageError("retrieval compares one stream, or adds up two")
    if checkpoints and streams and len(checkpoints) != len(streams):
        raise UsageError(
            f"there are {len(checkpoints)} checkpoints and {len(streams)} streams: "
            "name a stream for each checkpoint, or none"
        )
    pairs = list(zip_longest(checkpoints, streams)) or [(None, None)]
    first = find_subject(workspace, *pairs[0], options.pack)
    # The second encoder may come from another pack; what is compared are the first one's videos.
    others = [find_subject(workspace, *pair, first.pack.label) for pair in pairs[1:]]
    return [first, *others]
