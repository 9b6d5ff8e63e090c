"""`vidssl verify`: checks that the files of artifacts are complete and unchanged."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.base.files import file_digest
from vidssl.base.progress import SILENT, Progress, Task
from vidssl.dataset.annotations import Annotations
from vidssl.evaluation import feature_file
from vidssl.evaluation.classification import PREDICTIONS_FILE
from vidssl.evaluation.feature_cache import FEATURES_FILE
from vidssl.evaluation.finetuned_accuracy import PROBABILITIES_FILE, load_probabilities
from vidssl.shards import ShardReader
from vidssl.workspace.artifacts import MANIFEST, Artifact
from vidssl.workspace.checkpoints import checkpoint_views, encoder_file, load_encoder
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class Finding:
    """The problems of one artifact.

    Attributes:
        artifact: its label, or its folder if it cannot be read.
        files, bytes: of its payload.
        problems: one sentence each; none: the artifact is intact.
    """

    artifact: str
    kind: str
    files: int
    bytes: int
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether it has no problem."""
        return not self.problems


@dataclass(frozen=True)
class VerifyResult:
    """The findings of `vidssl verify`, one for each artifact."""

    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no artifact has a problem."""
        return all(finding.ok for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        return {"ok": self.ok, "artifacts": [vars(f) | {"ok": f.ok} for f in self.findings]}


@dataclass(frozen=True)
class VerifyOptions:
    """Which artifacts to check.

    Attributes:
        artifacts: labels, names or folders; none: all artifacts of the workspace.
    """

    artifacts: tuple[str, ...] = ()


def run(
    workspace: Workspace, options: VerifyOptions | None = None, progress: Progress = SILENT
) -> VerifyResult:
    """Checks the payload files of artifacts and their contents, down to each frame.

    Raises:
        VidsslError: there is no workspace, or no artifact of a given name.
    """
    if not workspace.root.exists():
        raise MissingInput(f"there is no workspace at {workspace.root}: nothing was verified")
    wanted = options.artifacts if options else ()
    unreadable: list[str] = []
    if wanted:
        artifacts = [find(workspace, text) for text in wanted]
    else:
        artifacts, unreadable = workspace.scan()
    findings = [Finding(_where(sentence), "", 0, 0, [sentence]) for sentence in unreadable]
    if not artifacts:
        return VerifyResult(findings)
    files = sum(len(artifact.payload) for artifact in artifacts)
    with progress.task("verify", files, "file") as task:
        findings += [verify_artifact(artifact, task) for artifact in artifacts]
    return VerifyResult(findings)


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
    told = {name for name in faults if any(str(artifact.path / name) in said for said in inside)}
    outside = [sentence for name, sentence in faults.items() if name not in told]
    size = sum(int(record["bytes"]) for record in artifact.payload.values())
    problems = [*outside, *inside, *_foreign(artifact)]
    return Finding(artifact.label, artifact.kind, len(artifact.payload), size, problems)


def _where(sentence: str) -> str:
    """Returns the folder of an unreadable artifact: the first word of the sentence about it."""
    return sentence.split(" ")[0].removesuffix(f"/{MANIFEST}")


# ── files ────────────────────────────────────────────────────────────────────────────────────


def _faults(artifact: Artifact, task: Task) -> Iterator[tuple[str, str]]:
    """Compares the payload with artifact.json, and yields (file, sentence) of each fault."""
    for name, record in artifact.payload.items():
        path = artifact.path / name
        if not path.is_file():
            yield name, f"{path} is missing"
        elif not _is_complete(artifact, name):
            yield name, f"{path} has {path.stat().st_size} bytes instead of {record['bytes']}"
        else:
            try:
                if file_digest(path) != record["sha256"]:
                    yield name, f"{path} is damaged: its bytes are not those that were written"
            except VidsslError as error:  # a failing disk
                yield name, str(error)
            except OSError as error:  # no permission to read
                yield name, f"{path} cannot be read: {error.strerror}"
        task.advance()


def _is_complete(artifact: Artifact, name: str) -> bool:
    path = artifact.path / name
    return path.is_file() and path.stat().st_size == artifact.payload[name]["bytes"]


def _foreign(artifact: Artifact) -> Iterator[str]:
    """Yields a sentence for each file that artifact.json does not list."""
    known = set(artifact.payload) | {MANIFEST}
    for path in sorted(artifact.path.rglob("*")):
        if path.is_file() and path.relative_to(artifact.path).as_posix() not in known:
            yield f"{path} does not belong to {artifact.label}"


# ── contents ─────────────────────────────────────────────────────────────────────────────────


def _inside(artifact: Artifact, faults: Collection[str], task: Task) -> Iterator[str]:
    """Checks the contents of the files; of damaged ones only where this can say more."""
    try:
        yield from CHECKS.get(artifact.kind, _nothing)(artifact, faults, task)
    except VidsslError as error:
        yield str(error)
    except OSError as error:
        yield f"{artifact.label} cannot be read: {error.strerror}"


def _nothing(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    return []


def _shards(artifact: Artifact, faults: Collection[str], task: Task) -> Iterator[str]:
    """Reads every frame of every view, and compares each video's and the shards' digests."""
    names = [name for name in artifact.payload if name.endswith(".h5")]
    sound = not any(name in faults for name in names)
    for name in names:
        if _is_complete(artifact, name):
            for problem in _shard(artifact.path / name, task):
                sound = False
                yield problem
    if sound:
        with ShardReader([artifact.path / name for name in names]) as reader:
            if reader.digest != artifact.digest:
                yield f"the videos of {artifact.label} are not those that its digest names"


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
        encoder = load_encoder(artifact.path / encoder_file(view))
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
    found = feature_file.load_features(artifact.path / FEATURES_FILE)
    if len(found.offsets) == len(found.ids) + 1 and found.offsets[-1] == len(found.windows):
        return []
    return [f"the tables of {artifact.label} do not fit together"]


def _annotations(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    if not faults:
        Annotations.load(artifact.path, [])
    return []


def _finetune(artifact: Artifact, faults: Collection[str], task: Task) -> Sequence[str]:
    """Compares the probabilities with the table of predictions that was made from them."""
    if PROBABILITIES_FILE in faults or PREDICTIONS_FILE in faults:
        return []
    share_NK, classes = load_probabilities(artifact.path / PROBABILITIES_FILE)
    with (artifact.path / PREDICTIONS_FILE).open(newline="", encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    if share_NK.shape == (rows, len(classes)) and np.allclose(share_NK.sum(1), 1, atol=1e-4):
        return []
    return [f"the probabilities of {artifact.label} do not fit its predictions"]


CHECKS: dict[str, Callable[[Artifact, Collection[str], Task], Iterable[str]]] = {
    "flow": _shards,
    "view": _shards,
    "pack": _shards,
    "checkpoint": _checkpoint,
    "features": _features,
    "annotations": _annotations,
    "finetune": _finetune,
}
