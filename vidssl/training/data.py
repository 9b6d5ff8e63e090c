"""How training stages find what they start from, by the rules of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.dataset.annotations import Annotations
from vidssl.methods import Method
from vidssl.shards import ShardReader
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_spec, checkpoint_views
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class TrainingData:
    """A pack with its annotations and the part of it that may be trained on.

    Attributes:
        split: the split that was used: a column, "80/20" or "all".
        note: how the part was chosen, in words.
    """

    pack: Artifact
    annotations: Artifact | None
    split: str
    classes: list[str]
    videos: TrainingVideos
    note: str


def find_pack(workspace: Workspace, text: str | None, views: list[str]) -> Artifact:
    """Returns the pack the user named, or the newest that holds all of `views`.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if text is not None:
        pack = workspace.resolve("pack", text)
        lacking = [v for v in views if v not in pack.summary["views"]]
        if lacking:
            raise VidsslError(f"{pack.label} has no {lacking[0]} view; {_how_to_pack(lacking[0])}")
        return pack
    if workspace.newest("pack") is None:
        raise MissingInput(
            f"there is no packed video in {workspace.root}; make some with: vidssl pack VIDEOS"
        )
    for view in views:
        missing = f"no pack in {workspace.root} has a {view} view; {_how_to_pack(view)}"
        workspace.require("pack", missing, lambda a, v=view: v in a.summary["views"])
    missing = f"no pack in {workspace.root} holds {' and '.join(views)} together"
    return workspace.require("pack", missing, lambda a: all(v in a.summary["views"] for v in views))


def _how_to_pack(view: str) -> str:
    first = get_view(view).how_to_make("VIDEOS")
    return f"make it with: {first}{', then ' if first else ''}vidssl pack VIDEOS"


def find_annotations(workspace: Workspace, pack: Artifact) -> Artifact | None:
    """Returns the newest annotations made for a pack, or None."""
    return workspace.newest("annotations", lambda a: a.parents.get("pack") == pack.digest)


def training_data(
    workspace: Workspace, pack: Artifact, split: str | None, seed: int
) -> TrainingData:
    """Opens a pack and selects the train part of a split."""
    reader = ShardReader(pack.path)
    artifact = find_annotations(workspace, pack)
    ids = [reader.video_id(i) for i in range(len(reader))]
    annotations = Annotations.load(artifact.path, ids) if artifact else Annotations.unlabelled(ids)
    selection = annotations.select(split, seed)
    train = np.asarray(selection.train)
    if len(train) == 0:
        raise VidsslError(f"split {selection.name} of {pack.label} has no training video")
    videos = TrainingVideos(
        reader=reader,
        index=train,
        source=np.asarray(annotations.groups)[train],
        label=np.asarray(annotations.labels)[train],
    )
    return TrainingData(
        pack, artifact, selection.name, list(annotations.classes), videos, selection.note
    )


def find_checkpoint(
    workspace: Workspace,
    stream: str,
    text: str | None = None,
    *,
    pack: Artifact | None = None,
    pretrained_only: bool = False,
    method: type[Method] | None = None,
) -> Artifact:
    """Returns the checkpoint the user named, or the newest of a stream.

    Finetuned ones must be named: they are measured, and are no start for what learns unlabelled.

    Args:
        pack: only checkpoints that descend from it, or, as imported ones, from none.
        pretrained_only: only those that were not co-trained.
        method: only those it can go on from: with a projection head, or with its context.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if text is not None:
        checkpoint = workspace.resolve("checkpoint", text)
        if stream not in checkpoint_views(checkpoint):
            raise VidsslError(f"{checkpoint.label} has no {stream} encoder")
        return checkpoint

    def fits(a: Artifact) -> bool:
        return (
            stream in checkpoint_views(a)
            and (pack is None or a.parents.get("pack", pack.digest) == pack.digest)
            and a.recipe.get("stage") != "finetune"
            and not (pretrained_only and a.recipe.get("stage") == "cotrain")
            and (method is None or checkpoint_spec(a, stream).context == method.context)
        )

    of_pack = f" from {pack.label}" if pack else ""
    for_it = f" that {method.name} can go on from" if method else ""
    how = "" if method is None or method.context is None else " --method cpc"
    return workspace.require(
        "checkpoint",
        f"there is no {stream} checkpoint{of_pack} in {workspace.root}{for_it}; "
        f"make one with: vidssl pretrain --stream {stream}{how}",
        fits,
    )


def pack_of(
    workspace: Workspace, checkpoint: Artifact, text: str | None, views: Sequence[str]
) -> Artifact:
    """Returns the pack a checkpoint was trained on.

    Args:
        text, views: of :func:`find_pack`, for imported weights, which descend from no pack.

    Raises:
        MissingInput: it is not in the workspace any more.
    """
    if "pack" not in checkpoint.parents:
        return find_pack(workspace, text, list(views))
    pack = workspace.by_digest(checkpoint.parents["pack"])
    if pack is None or pack.kind != "pack":
        raise MissingInput(
            f"the pack that {checkpoint.label} was trained on is not in {workspace.root} any more"
        )
    return pack
