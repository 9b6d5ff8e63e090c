"""`vidssl verify`: checks that the files of artifacts are complete and unchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress, Task
from vidssl.evaluation import feature_file
from vidssl.evaluation.classification import PREDICTIONS_FILE
from vidssl.evaluation.feature_cache import FEATURES_FILE
from vidssl.evaluation.finetuned_accuracy import PROBABILITIES_FILE, load_probabilities
from vidssl.shards import SHARDS, DamagedShard, ShardReader, check_set, open_shards
from vidssl.stages.repair.numbers import Repair, number_problems, repair_numbers
from vidssl.workspace.artifacts import FRAMES_ROLE, MANIFEST, Artifact
from vidssl.workspace.checkpoints import checkpoint_views, encoder_file, load_encoder
from vidssl.workspace.payload import DamagedArtifact
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class Finding:
    """The problems of one artifact.

    Attributes:
        artifact: its label, or its folder or file if it cannot be read.
        files, bytes: of its payload.
        problems: one sentence each; none: the artifact is intact.
        faulty: files of it that are missing, or have other bytes than were written.
    """

    artifact: str
    kind: str
    files: int
    bytes: int
    problems: list[str]
    faulty: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it has no problem."""
        return not self.problems


@dataclass(frozen=True)
class VerifyResult:
    """The findings of `vidssl verify`, one for each artifact.

    Attributes:
        repairs: what was done about problems, or why nothing was; the findings are those after.
    """

    findings: list[Finding]
    repairs: list[Repair] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no artifact has a problem."""
        return all(finding.ok for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        found = {"ok": self.ok, "artifacts": [vars(f) | {"ok": f.ok} for f in self.findings]}
        return found | ({"repairs": [vars(r) for r in self.repairs]} if self.repairs else {})


@dataclass(frozen=True)
class VerifyOptions:
    """Which artifacts to check.

    Attributes:
        artifacts: labels, names or folders; none: all artifacts of the workspace.
        repair: make again what sources and parents can make.
        videos: the source videos, for the repair of shards; None: unknown.
        workers: processes that process these; None: as many as the stage chooses.
    """

    artifacts: tuple[str, ...] = ()
    repair: bool = False
    videos: Path | None = None
    workers: int | None = None


def run(
    workspace: Workspace, options: VerifyOptions | None = None, progress: Progress = SILENT
) -> VerifyResult:
    """Checks the payload files of artifacts and their contents, down to each frame.

    Raises:
        VidsslError: there is no workspace, or no artifact of a given name.
        UsageError: videos are given, and nothing is to be repaired.
    """
    if options and options.videos is not None and not options.repair:
        raise UsageError("--videos is what --repair makes shards of: add --repair")
    if not workspace.root.exists():
        raise MissingInput(f"there is no workspace at {workspace.root}: nothing was verified")
    options = options or VerifyOptions()
    repairs = repair_numbers(workspace) if options.repair else []
    if options.artifacts:
        artifacts, findings = [find(workspace, text) for text in options.artifacts], []
    else:
        artifacts, unreadable = workspace.scan()
        unreadable += workspace.scan_unfinished()[1] + number_problems(workspace.root)
        findings = [Finding(_where(sentence), "", 0, 0, [sentence]) for sentence in unreadable]
    if options.repair and not options.artifacts:
        repairs += _told_unreadable(workspace)
    if not artifacts:
        return VerifyResult(findings, repairs)
    files = sum(len(artifact.payload) for artifact in artifacts)
    with progress.task("verify", files, "file") as task:
        found = [verify_artifact(artifact, task) for artifact in artifacts]
    if options.repair:
        found = _repaired(workspace, artifacts, found, options, repairs, progress)
    return VerifyResult(findings + found, repairs)


def _told_unreadable(workspace: Workspace) -> list[Repair]:
    from vidssl.stages.repair.artifacts import say_unreadable

    return [say_unreadable(folder) for folder in workspace.unreadable()]


def _repaired(
    workspace: Workspace,
    artifacts: Sequence[Artifact],
    found: Sequence[Finding],
    options: VerifyOptions,
    repairs: list[Repair],
    progress: Progress,
) -> list[Finding]:
    """Repairs damaged artifacts, parents first, and returns the findings after that."""
    from vidssl.stages.repair.artifacts import repair
    from vidssl.stages.repair.make_again import Sources

    sources, after = Sources(options.videos, options.workers), []
    for artifact, finding in zip(artifacts, found, strict=True):
        if not finding.ok:
            repairs.append(repair(workspace, artifact, finding.faulty, sources, progress))
            if repairs[-1].done:
                again = Artifact.load(artifact.path)
                with progress.task("verify", len(again.payload), "file") as task:
                    finding = verify_artifact(again, task)
        after.append(finding)
    return after


def find(workspace: Workspace, text: str) -> Artifact:
    """Returns the artifact that the user named: KIND/NAME/vNNN, KIND/NAME, NAME, or a folder.

    Raises:
        VidsslError: there is none, or several kinds have one of that name.
    """
    if workspace.root.joinpath(text, MANIFEST).exists():
        return Artifact.load(workspace.root / text)
    kinds = sorted({artifact.kind for artifact in workspace.scan()[0]})
    kind, _, rest = text.partition("/")
    if kind in kinds and rest:
        return workspace.resolve(kind, rest)
    found = []
    for kind in kinds:
        try:
            found.append(workspace.resolve(kind, text))
        except VidsslError:
            continue
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(artifact.label for artifact in found)
        raise VidsslError(f"{text} may mean {listed}: name one of them in full")
    raise VidsslError(f"there is no artifact named {text} in {workspace.root}; see: vidssl status")


def verify_artifact(artifact: Artifact, task: Task) -> Finding:
    """Checks one artifact and reports each problem once.

    Args:
        task: is advanced by one for each file.
    """
    faults = dict(_faults(artifact, task))
    inside = list(dict.fromkeys(_inside(artifact, faults, task)))
    # A problem inside a file says more than that the file's bytes have changed.
    told = {name for name in faults if any(artifact.files.where(name) in said for said in inside)}
    outside = [sentence for name, sentence in faults.items() if name not in told]
    size = sum(int(record["bytes"]) for record in artifact.payload.values())
    problems = [*outside, *inside, *(sentence for _, sentence in artifact.files.foreign())]
    files = len(artifact.payload)
    return Finding(artifact.label, artifact.kind, files, size, problems, sorted(faults))


def _where(sentence: str) -> str:
    """Returns the folder of an unreadable artifact: the first word of the sentence about it."""
    return sentence.split(" ")[0].removesuffix(f"/{MANIFEST}")


# ── files ────────────────────────────────────────────────────────────────────────────────────


def _faults(artifact: Artifact, task: Task) -> Iterator[tuple[str, str]]:
    """Compares the payload with artifact.json, and yields (file, sentence) of each fault."""
    for name in artifact.payload:
        if fault := artifact.files.misfit(name) or artifact.files.changed(name):
            yield name, fault
        task.advance()


# ── contents ─────────────────────────────────────────────────────────────────────────────────


def _inside(artifact: Artifact, faults: Collection[str], task: Task) -> Iterator[str]:
    """Checks the contents of the files; of damaged ones only where this can say more."""
    try:
        yield from CHECKS.get(artifact.kind, _nothing)(artifact, faults, task)
    except (DamagedShard, DamagedArtifact) as error:
        yield error.fault
    except VidsslError as error:
        yield str(error)
    except OSError as error:
        yield f"{artifact.label} cannot be read: {error.strerror}"
    except Exception as error:  # no artifact keeps those after it from being looked at
        yield f"{artifact.label} cannot be checked: {type(error).__name__}: {error}"


def _nothing(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    return []


def _shards(artifact: Artifact, faults: Collection[str], task: Task) -> Iterator[str]:
    """Reads every frame of every view, and compares each video's and the shards' digests."""
    names = [name for name in artifact.payload if Path(name).match(SHARDS)]
    sound = not any(name in faults for name in names)
    for name in names:
        if artifact.files.misfit(name) is None:
            for problem in _shard(artifact.files.sized(name), task):
                sound = False
                yield problem
    if sound:
        with ShardReader([artifact.files.sized(name) for name in names]) as reader:
            check_set(artifact, reader)


def _pack(artifact: Artifact, faults: Collection[str], task: Task) -> Iterable[str]:
    """Looks at shards as :func:`_shards`; a table of segments is compared with its frames' pack."""
    if FRAMES_ROLE not in artifact.parents:
        return _shards(artifact, faults, task)
    if not faults:
        open_shards(artifact).close()
    return []


def _shard(path: Path, task: Task) -> Iterator[str]:
    try:
        with ShardReader([path]) as reader:
            yield from reader.verify(lambda done: task.advance(0, video=f"{done}/{len(reader)}"))
    except VidsslError as error:
        yield str(error)
    except OSError as error:
        yield f"{path} cannot be read: {error.strerror}"


def _checkpoint(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    """Loads every encoder, and checks header, names, shapes and values."""
    views = checkpoint_views(artifact)
    if not views:
        return [f"{artifact.label} holds no encoder"]
    problems = []
    for view in views:
        if encoder_file(view) in faults:
            continue
        encoder = load_encoder(artifact.files.sized(encoder_file(view)))
        broken = [
            name
            for name, value in encoder.state_dict().items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            problems.append(
                f"the {view} encoder of {artifact.label} has values that are no numbers, "
                f"such as in {broken[0]}"
            )
    return problems


def _features(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    if FEATURES_FILE in faults:
        return []
    feature_file.load_features(artifact.files.sized(FEATURES_FILE))
    return []


def _annotations(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    if not faults:
        read_annotations(artifact, [])
    return []


def _finetune(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    """Compares the probabilities with the table of predictions that was made from them."""
    if PROBABILITIES_FILE in faults or PREDICTIONS_FILE in faults:
        return []
    share_NK, classes = load_probabilities(artifact.files.sized(PROBABILITIES_FILE))
    table = artifact.files.read(PREDICTIONS_FILE).decode("utf-8")
    rows = sum(1 for _ in csv.DictReader(io.StringIO(table, newline="")))
    if share_NK.shape == (rows, len(classes)) and np.allclose(share_NK.sum(1), 1, atol=1e-4):
        return []
    return [f"the probabilities of {artifact.label} do not fit its predictions"]


CHECKS: dict[str, Callable[[Artifact, Collection[str], Task], Iterable[str]]] = {
    "flow": _shards,
    "view": _shards,
    "pack": _pack,
    "checkpoint": _checkpoint,
    "features": _features,
    "annotations": _annotations,
    "finetune": _finetune,
}
