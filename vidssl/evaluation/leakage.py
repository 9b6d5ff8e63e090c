"""Finds the videos that an encoder was trained on, and test videos among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vidssl.base.text import agree, counted
from vidssl.dataset.splits import EVERYTHING, SEEDED
from vidssl.evaluation.split_to_evaluate import select_split, split_seed
from vidssl.methods import METHODS
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.parent_roles import trained_before
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace


def leakage(workspace: Workspace, checkpoint: Artifact, test_ids: Sequence[str]) -> list[str]:
    """Returns a sentence if a checkpoint or one it learnt from was trained on test videos.

    Args:
        test_ids: of the whole videos: training may have seen another segment of one.
    """
    seen = trained_ids(workspace, checkpoint)
    if seen is None:
        return [f"what {checkpoint.label} was trained on is not known here any more, so it "
                "cannot be told whether test videos were among it"]  # fmt: skip
    tested = set(test_ids)
    both = len(seen & tested)
    if not both:
        return []
    return [
        f"{both} of the {counted(len(tested), 'test video')} {agree(both, 'was', 'were')} in the "
        f"training set of {checkpoint.label}{_unlabelled(checkpoint)}, which flatters these figures"
    ]


def _unlabelled(checkpoint: Artifact) -> str:
    method = METHODS.get(checkpoint.recipe.get("method_name", ""))
    return "" if method is not None and method.supervised else " (without labels)"


def trained_ids(workspace: Workspace, checkpoint: Artifact) -> set[str] | None:
    """Returns the ids of all whole videos that a checkpoint and its ancestors were trained on.

    Returns:
        None if an artifact that is needed for the answer is not in the workspace any more.
    """
    seen: set[str] = set()
    for ancestor in _ancestors(workspace, checkpoint):
        own = _ids_of_one(workspace, ancestor) if ancestor is not None else None
        if own is None:
            return None
        seen |= own
    return seen


def _ancestors(workspace: Workspace, checkpoint: Artifact) -> Iterator[Artifact | None]:
    """Yields a checkpoint and all checkpoints that it learnt from; None for each that is gone."""
    known = {a.digest: a for a in workspace.scan()[0]}
    frontier: list[Artifact | None] = [checkpoint]
    while frontier:
        current = frontier.pop()
        yield current
        if current is not None:
            frontier += [known.get(digest) for digest in trained_before(current.parents)]


def _ids_of_one(workspace: Workspace, checkpoint: Artifact) -> set[str] | None:
    """Returns the ids of the videos that one training used; None if they cannot be found out."""
    pack = workspace.by_digest(checkpoint.parents.get("pack", ""))
    if pack is None:
        return None
    reader = open_shards(pack)
    ids = [reader.video_id(v) for v in range(len(reader))]
    split = checkpoint.recipe.get("split")
    if split in (None, EVERYTHING):
        return {reader.whole_id(v) for v in range(len(reader))}
    artifact = workspace.by_digest(checkpoint.parents.get("annotations", ""))
    if artifact is None:
        return None
    annotations = read_annotations(artifact, ids)
    if split != SEEDED and split not in annotations.splits:
        return None
    seed = split_seed(checkpoint)
    selection = select_split(annotations, None, split, seed)
    return {reader.whole_id(int(v)) for v in selection.train}
