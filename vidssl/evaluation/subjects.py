"""What every evaluation starts from: an encoder, packed videos, their labels, and a split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.text import agree, counted
from vidssl.dataset.annotations import (
    EVERYTHING,
    SEEDED,
    Annotations,
    Selection,
)
from vidssl.methods import METHODS
from vidssl.shards import ShardReader
from vidssl.training.data import find_annotations, find_checkpoint, find_pack
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.checkpoints import checkpoint_views
from vidssl.workspace.workspace import Workspace

DEFAULT_STREAM = "rgb"
FEWEST_TESTS = 30  # videos; of fewer, a standard error may be 9 points and more


@dataclass(frozen=True)
class EncoderOnPack:
    """A checkpoint's encoder of one stream, and the pack it is tried on."""

    checkpoint: Artifact
    stream: str
    pack: Artifact


def checkpoints_of(subjects: Sequence[EncoderOnPack]) -> list[str]:
    """Returns the labels of the checkpoints, once each: one may hold the encoders of all
    streams.
    """
    return list(dict.fromkeys(subject.checkpoint.label for subject in subjects))


def in_words(subjects: Sequence[EncoderOnPack]) -> str:
    """Names the checkpoints, once each, and of one with several encoders those that are meant."""
    streams: dict[str, list[str]] = {label: [] for label in checkpoints_of(subjects)}
    for subject in subjects:
        if len(checkpoint_views(subject.checkpoint)) > 1:
            streams[subject.checkpoint.label].append(subject.stream)
    return " + ".join(
        f"{label} ({' + '.join(meant)})" if meant else label for label, meant in streams.items()
    )


@dataclass(frozen=True)
class LabelledSplit:
    """A pack's videos with what is known of them, and the split that is evaluated.

    Attributes:
        ids: of all the pack's videos [V]; `annotations` and `selection` are aligned to them.
        artifact: where the annotations come from.
        split_seed: the seed of a drawn split.
        train, test: positions of the labelled videos of either part.
        notes: sentences the user should see.
    """

    reader: ShardReader
    ids: list[str]
    annotations: Annotations
    artifact: Artifact
    selection: Selection
    split_seed: int
    train: np.ndarray
    test: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.annotations.classes

    @property
    def labels(self) -> np.ndarray:
        """Class of each video, −1 for none: int64 [V]."""
        return self.annotations.labels


def check_words(
    checkpoints: Sequence[str] = (),
    streams: Sequence[str] = (),
    device: str | None = None,
    name: str | None = None,
) -> None:
    """Checks what options say by themselves, before anything is looked up.

    Raises:
        UsageError: as many streams as do not fit several checkpoints, no such view, no such
            device, or no name for an artifact.
    """
    for stream in streams:
        get_view(stream)
    if len(checkpoints) > 1 and streams and len(checkpoints) != len(streams):
        raise UsageError(
            f"there are {len(checkpoints)} checkpoints and {counted(len(streams), 'stream')}: "
            "name a stream for each checkpoint, or none"
        )
    choose_device(device)
    if name is not None:
        check_name(name)


def find_subject(
    workspace: Workspace,
    checkpoint: str | None = None,
    stream: str | None = None,
    pack: str | None = None,
) -> EncoderOnPack:
    """Finds the encoder to evaluate: the one named, or the newest of the stream (rgb).

    Its pack is the one it was trained on, unless another is named; that of imported weights is the
    newest with the stream.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    found, stream = find_encoder(workspace, checkpoint, stream)
    return EncoderOnPack(found, stream, _pack_for(workspace, found, stream, pack))


def find_subjects(
    workspace: Workspace,
    checkpoints: Sequence[str] = (),
    streams: Sequence[str] = (),
    pack: str | None = None,
) -> list[EncoderOnPack]:
    """Finds the encoders of one stream or of several, all to be tried on the first one's pack.

    Args:
        checkpoints: one for each stream, or one that holds the encoders of all; none: the newest
            of each stream.
        streams: none: the checkpoints' own, or rgb.

    Raises:
        UsageError: as :func:`check_words`.
        VidsslError: as :func:`find_subject`.
    """
    check_words(checkpoints, streams)
    if len(checkpoints) == 1:
        checkpoints = [*checkpoints] * max(1, len(streams))
    pairs = list(zip_longest(checkpoints, streams)) or [(None, None)]
    first = find_subject(workspace, *pairs[0], pack)
    # Others may come from another pack; what is compared are the first one's videos.
    return [first, *(find_subject(workspace, *pair, first.pack.label) for pair in pairs[1:])]


def find_encoder(
    workspace: Workspace, checkpoint: str | None, stream: str | None
) -> tuple[Artifact, str]:
    """Returns the checkpoint that is meant, and its stream: the named one's, or the newest of rgb.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if checkpoint is not None and stream is None:
        found = workspace.resolve("checkpoint", checkpoint)
        return found, _main_stream(found)
    stream = stream or DEFAULT_STREAM
    return find_checkpoint(workspace, stream, checkpoint), stream


def _main_stream(checkpoint: Artifact) -> str:
    views = checkpoint_views(checkpoint)
    if not views:
        raise VidsslError(f"{checkpoint.label} holds no encoder")
    stream = checkpoint.recipe.get("stream")
    return stream if stream in views else views[0]


def _pack_for(
    workspace: Workspace, checkpoint: Artifact, stream: str, text: str | None
) -> Artifact:
    if text is not None or "pack" not in checkpoint.parents:  # imported weights descend from none
        return find_pack(workspace, text, [stream])
    pack = workspace.by_digest(checkpoint.parents["pack"])
    if pack is None or pack.kind != "pack":
        raise MissingInput(
            f"the pack that {checkpoint.label} was trained on is not in {workspace.root} any "
            "more: name another with --pack, or make it again with: vidssl pack VIDEOS"
        )
    return pack


# ── labels and splits ────────────────────────────────────────────────────────────────────────


def find_labels(
    workspace: Workspace,
    pack: Artifact,
    checkpoints: Sequence[Artifact],
    split: str | None,
    seed: int = 0,
) -> LabelledSplit:
    """Opens a pack with its newest annotations and selects a split.

    Without a split named it is that of the (first) checkpoint's training.

    Args:
        seed: of a drawn split, where no checkpoint brings one.

    Raises:
        VidsslError: no labels, no such split, or a part of it without a labelled video.
    """
    reader = ShardReader(pack.path)
    ids = [reader.video_id(v) for v in range(len(reader))]
    artifact = find_annotations(workspace, pack)
    if artifact is None:
        raise MissingInput(_no_labels(pack))
    annotations = Annotations.load(artifact.path, ids)
    if not np.any(annotations.labels >= 0):
        raise MissingInput(_no_labels(pack))
    if checkpoints:
        seed = split_seed(checkpoints[0], seed)
    trained_with = checkpoints[0].recipe.get("split") if checkpoints else None
    selection = _select(annotations, split, trained_with, seed)
    train, test = (
        part[annotations.labels[part] >= 0] for part in (selection.train, selection.test)
    )
    for name, part in (("train", train), ("test", test)):
        if len(part) == 0:
            raise VidsslError(
                f"the {name} part of {selection.name} in {artifact.label} has no labelled video"
            )
    notes = _without_label(selection, train, test)
    for checkpoint in {c.digest: c for c in checkpoints}.values():  # one may hold several streams
        notes += leakage(workspace, checkpoint, [ids[v] for v in test])
    notes += too_few(len(test))
    return LabelledSplit(reader, ids, annotations, artifact, selection, seed, train, test, notes)


def split_seed(checkpoint: Artifact, seed: int = 0) -> int:
    """Returns the seed of the split that a checkpoint was trained with, were it a drawn one.

    Args:
        seed: of a checkpoint that does not say.
    """
    # A finetuned network keeps the split of the encoder it began from, whatever its own seed.
    return int(checkpoint.recipe.get("split_seed", checkpoint.recipe.get("seed", seed)))


def _no_labels(pack: Artifact) -> str:
    return (
        f"{pack.label} has no labels, and this needs them: give each class a folder of its own, "
        "or name a table of labels with: vidssl pack VIDEOS --labels FILE.csv"
    )


def _select(
    annotations: Annotations, split: str | None, trained_with: str | None, seed: int
) -> Selection:
    # A drawn split that was trained with stays, also where split columns have come since.
    if split is None and (trained_with == SEEDED or trained_with in annotations.splits):
        split = trained_with
    return annotations.select(split, seed)


def _without_label(selection: Selection, train: np.ndarray, test: np.ndarray) -> list[str]:
    left = len(selection.train) + len(selection.test) - len(train) - len(test)
    if not left:
        return []
    verbs = agree(left, "has no label and is", "have no label and are")
    return [f"{counted(left, 'video')} of the split {verbs} left out"]


def too_few(tests: int) -> list[str]:
    """Returns a sentence if a test part is so small that its figures say little.

    A share of n videos is known to sqrt(p(1 − p) / n), at most 0.5 / √n.
    """
    if tests >= FEWEST_TESTS:
        return []
    return [
        f"the test part has only {counted(tests, 'video')}: each counts {100 / tests:.0f} of "
        f"100 points, and one standard error is up to {50 / math.sqrt(tests):.0f}, so smaller "
        "differences say nothing"
    ]


def check_trainable(labelled: LabelledSplit, what: str = "probe") -> None:
    """Refuses a split whose train part has one class only.

    Raises:
        VidsslError: the sentence names the class.
    """
    known = np.unique(labelled.labels[labelled.train])
    if len(known) < 2:
        raise VidsslError(
            f"a {what} tells classes apart, and the train part of {labelled.selection.name} "
            f"has only {labelled.classes[known[0]]}"
        )


# ── what an encoder has seen ─────────────────────────────────────────────────────────────────


def leakage(workspace: Workspace, checkpoint: Artifact, test_ids: Sequence[str]) -> list[str]:
    """Returns a sentence if an encoder was trained on videos that it is now tested on."""
    seen = trained_ids(workspace, checkpoint)
    if seen is None:
        return [f"what {checkpoint.label} was trained on is not known here any more, so it "
                "cannot be told whether test videos were among it"]  # fmt: skip
    both = len(seen & set(test_ids))
    if not both:
        return []
    return [
        f"{both} of the {counted(len(test_ids), 'test video')} {agree(both, 'was', 'were')} in the "
        f"training set of {checkpoint.label}{_unlabelled(checkpoint)}, which flatters these figures"
    ]


def _unlabelled(checkpoint: Artifact) -> str:
    method = METHODS.get(checkpoint.recipe.get("method_name", ""))
    return "" if method is not None and method.supervised else " (without labels)"


def trained_ids(workspace: Workspace, checkpoint: Artifact) -> set[str] | None:
    """Returns the ids of the videos a checkpoint and its ancestors were trained on, or None.

    None when an artifact that would tell is not in the workspace any more.
    """
    seen: set[str] = set()
    for ancestor in _ancestors(workspace, checkpoint):
        own = _ids_of_one(workspace, ancestor) if ancestor is not None else None
        if own is None:
            return None
        seen |= own
    return seen


def _ancestors(workspace: Workspace, checkpoint: Artifact) -> Iterator[Artifact | None]:
    """Returns a checkpoint and every checkpoint before it; None for one that is gone."""
    known = {a.digest: a for a in workspace.scan()[0]}
    frontier: list[Artifact | None] = [checkpoint]
    while frontier:
        current = frontier.pop()
        yield current
        if current is not None:
            # A partner only chose among videos, but what it chose by it had learnt from its own.
            trained = ("student", "partner", "init", "init2")
            roles = [r for r in trained if r in current.parents]
            frontier += [known.get(current.parents[role]) for role in roles]


def _ids_of_one(workspace: Workspace, checkpoint: Artifact) -> set[str] | None:
    pack = workspace.by_digest(checkpoint.parents.get("pack", ""))
    if pack is None:
        return None
    reader = ShardReader(pack.path)
    ids = [reader.video_id(v) for v in range(len(reader))]
    split = checkpoint.recipe.get("split")
    if split in (None, EVERYTHING):
        return set(ids)
    artifact = workspace.by_digest(checkpoint.parents.get("annotations", ""))
    if artifact is None:
        return None
    annotations = Annotations.load(artifact.path, ids)
    if split != SEEDED and split not in annotations.splits:
        return None
    seed = split_seed(checkpoint)
    selection = _select(annotations, None, split, seed)
    return {ids[v] for v in selection.train}
